// What a user of the Vercel AI SDK does: `node vercel.mjs <client> <base URL> <models>` prints what came.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, generateText, isStepCount, streamText, tool } from "ai";
import { z } from "zod";

const [client, baseURL, ...names] = process.argv.slice(2);
const apiKey = "none";
const models = {
  chat: (name) => createOpenAI({ baseURL, apiKey }).chat(name),
  responses: (name) => createOpenAI({ baseURL, apiKey }).responses(name),
  compatible: (name) =>
    createOpenAICompatible({ name: "windlass", baseURL, apiKey, includeUsage: true, supportsStructuredOutputs: true })(name),
  messages: (name) => createAnthropic({ baseURL, apiKey })(name),
};
const crew = tool({
  description: "How many a drum needs at its bars.",
  inputSchema: z.object({ drum: z.string(), bars: z.number() }),
  execute: async ({ drum, bars }) => ({ drum, hands: 2 * bars }),
});
const order = { prompt: "Ask crew for the drum 'aft' with 6 bars.", tools: { crew }, stopWhen: isStepCount(3) };
const Joke = z.object({ setup: z.string(), punchline: z.string(), pawls: z.number() });
const joke = { prompt: "Tell me a joke with 7 pawls.", output: Output.object({ schema: Joke }) };

// The outcome of a call with one tool: what was called with what, what came of it, and what was said at the end.
const ended = (result, steps) => ({
  calls: steps.flatMap((step) => step.toolCalls.map((call) => ({ name: call.toolName, input: call.input }))),
  results: steps.flatMap((step) => step.toolResults.map((answer) => answer.output)),
  finishes: steps.map((step) => step.finishReason),
  text: result,
});

const counts = ({ inputTokens, outputTokens }) => ({ inputTokens, outputTokens });

async function stream(asked) {
  const result = streamText({ ...asked, onError: ({ error }) => Promise.reject(error) });
  const pieces = [];
  for await (const piece of result.textStream) pieces.push(piece);
  return { result, pieces };
}

async function ask(name) {
  const plain = { model: models[client](name), maxRetries: 0, maxOutputTokens: 512, abortSignal: AbortSignal.timeout(20_000) };
  const told = {};
  const said = await generateText({ ...plain, prompt: "Hello" });
  told.plain = { text: said.text, finish: said.finishReason, usage: counts(said.usage) };

  const { result, pieces } = await stream({ ...plain, prompt: "Hello" });
  told.stream = {
    text: pieces.join(""),
    pieces: pieces.length,
    finish: await result.finishReason,
    usage: counts(await result.usage),
  };

  const called = await generateText({ ...plain, ...order });
  told.tools = ended(called.text, called.steps);
  const streamed = await stream({ ...plain, ...order });
  told.toolsStreamed = ended(await streamed.result.text, await streamed.result.steps);

  told.structured = (await generateText({ ...plain, ...joke })).output;
  const partial = await stream({ ...plain, ...joke });
  told.structuredStreamed = await partial.result.output;
  return told;
}

const answers = {};
for (const name of names) answers[name] = await ask(name);
console.log(JSON.stringify(answers));
