// What a user of openai-node does with tools and schemas: `node calls.mjs <endpoint> <base URL> <models>`.
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const [endpoint, baseURL, ...models] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0, timeout: 20_000 });
const schema = {
  type: "object",
  properties: { drum: { type: "string" }, bars: { type: "number" } },
  required: ["drum", "bars"],
  additionalProperties: false,
};
const crew = { name: "crew", description: "How many a drum needs at its bars.", parameters: schema, strict: true };
const order = "Ask crew for the drum 'aft' with 6 bars.";
const answer = JSON.stringify({ hands: 12 });
const Joke = z.object({ setup: z.string(), punchline: z.string(), pawls: z.number() });
const joke = "Tell me a joke with 7 pawls.";

const endpoints = {
  async chat(model) {
    const { completions } = client.chat;
    const messages = (content) => [{ role: "user", content }];
    const usage = ({ prompt_tokens, completion_tokens }) => ({ inputTokens: prompt_tokens, outputTokens: completion_tokens });
    const said = await completions.create({ model, messages: messages("Hello") });
    const stream = completions.stream({ model, messages: messages("Hello"), stream_options: { include_usage: true } });
    let pieces = 0;
    stream.on("content", () => (pieces += 1));
    const streamed = await stream.finalChatCompletion();

    const tools = [{ type: "function", function: crew }];
    const called = await completions.create({ model, messages: messages(order), tools });
    const calledStreamed = await completions.stream({ model, messages: messages(order), tools }).finalChatCompletion();
    const [call] = called.choices[0].message.tool_calls;
    const told = { role: "tool", tool_call_id: call.id, content: answer };
    const after = await completions.create({ model, messages: [...messages(order), called.choices[0].message, told], tools });
    const outcome = (reply, last) => ({
      calls: reply.choices[0].message.tool_calls.map((one) => ({
        name: one.function.name,
        input: JSON.parse(one.function.arguments),
      })),
      finish: reply.choices[0].finish_reason,
      text: last?.choices[0].message.content,
    });

    const form = { model, messages: messages(joke), response_format: zodResponseFormat(Joke, "joke") };
    return {
      plain: { text: said.choices[0].message.content, finish: said.choices[0].finish_reason, usage: usage(said.usage) },
      stream: {
        text: streamed.choices[0].message.content,
        pieces,
        finish: streamed.choices[0].finish_reason,
        usage: usage(streamed.usage),
      },
      tools: outcome(called, after),
      toolsStreamed: outcome(calledStreamed),
      structured: (await completions.parse(form)).choices[0].message.parsed,
      structuredStreamed: (await completions.stream(form).finalChatCompletion()).choices[0].message.parsed,
    };
  },

  async responses(model) {
    const { responses } = client;
    const usage = ({ input_tokens, output_tokens }) => ({ inputTokens: input_tokens, outputTokens: output_tokens });
    const said = await responses.create({ model, input: "Hello" });
    const stream = responses.stream({ model, input: "Hello" });
    let pieces = 0;
    stream.on("response.output_text.delta", () => (pieces += 1));
    const streamed = await stream.finalResponse();

    const tools = [{ type: "function", ...crew }];
    const called = await responses.create({ model, input: order, tools });
    const calledStreamed = await responses.stream({ model, input: order, tools }).finalResponse();
    const [call] = called.output.filter((item) => item.type === "function_call");
    const told = { type: "function_call_output", call_id: call.call_id, output: answer };
    const after = await responses.create({ model, input: [{ role: "user", content: order }, ...called.output, told], tools });
    const outcome = (reply, last) => ({
      calls: reply.output
        .filter((item) => item.type === "function_call")
        .map((item) => ({ name: item.name, input: JSON.parse(item.arguments) })),
      finish: reply.status,
      text: last?.output_text,
    });

    const form = { model, input: joke, text: { format: zodTextFormat(Joke, "joke") } };
    return {
      plain: { text: said.output_text, finish: said.status, usage: usage(said.usage) },
      stream: { text: streamed.output_text, pieces, finish: streamed.status, usage: usage(streamed.usage) },
      tools: outcome(called, after),
      toolsStreamed: outcome(calledStreamed),
      structured: (await responses.parse(form)).output_parsed,
      structuredStreamed: (await responses.stream(form).finalResponse()).output_parsed,
    };
  },
};

const answers = {};
for (const model of models) answers[model] = await endpoints[endpoint](model);
console.log(JSON.stringify(answers));
