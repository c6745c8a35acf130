// What a user of openai-node does, one function per topic: `node client.mjs <topic> <base URL> [key]` prints what came.
import OpenAI from "openai";

const PASSAGES = "A pawl drops into the teeth of the wheel. It keeps the drum from turning back.\n\nWhat keeps the drum?";
const messages = [{ role: "user", content: PASSAGES }];
const model = "local/quotes-fast";
const embedder = "all-minilm-l6-v2";
const [topic, baseURL, apiKey = "none"] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 30_000 });

// The typed error that `promise` rejects with, as a user sees it.
async function failure(promise) {
  try {
    return { answered: await promise };
  } catch (error) {
    const { status, code, param, type, message } = error;
    const kinds = Object.keys(OpenAI).filter((name) => name.endsWith("Error") && error instanceof OpenAI[name]);
    return { kind: error.constructor.name, kinds: kinds.sort(), status, code, param, type, message };
  }
}

const create = (fields, options) => client.chat.completions.create({ model, messages, ...fields }, options);

const embed = (fields) => client.embeddings.create({ model: embedder, input: "A pawl holds the load.", ...fields });

const topics = {
  async models() {
    const found = [];
    for await (const one of client.models.list()) found.push(one.id);
    return found;
  },

  async chat() {
    const answers = {};
    for (const name of ["auto", "local/quotes-fast", "local/quotes-semantic"]) {
      const { data, response } = await create({ model: name }).withResponse();
      const [choice] = data.choices;
      answers[name] = {
        call: response.headers.get("x-windlass-call"),
        text: choice.message.content,
        role: choice.message.role,
        finish: choice.finish_reason,
        usage: data.usage,
      };
    }
    return answers;
  },

  async stream() {
    const pieces = [];
    const finished = [];
    let usage = null;
    for await (const chunk of await create({ stream: true, stream_options: { include_usage: true } })) {
      for (const choice of chunk.choices) {
        pieces.push(choice.delta.content ?? "");
        if (choice.finish_reason) finished.push(choice.finish_reason);
      }
      usage = chunk.usage ?? usage;
    }
    const plain = (await create({})).choices[0].message.content;
    const helper = await client.chat.completions.stream({ model, messages }).finalContent();
    return { text: pieces.join(""), pieces: pieces.length, finished, usage, plain, helper };
  },

  async leave() {
    const stream = await create({ stream: true });
    for await (const _chunk of stream) break;
    return { aborted: stream.controller.signal.aborted, after: (await create({})).choices.length };
  },

  async embeddings() {
    const input = ["A pawl holds the load.", "The pawl keeps the drum from turning.", "Bread is baked in an oven."];
    const { data: list, response } = await embed({ input }).withResponse();
    const floats = await embed({ input, encoding_format: "float" });
    const one = await embed({ input: input[0] });
    return {
      call: response.headers.get("x-windlass-call"),
      indices: list.data.map((item) => item.index),
      vectors: list.data.map((item) => Array.from(item.embedding)),
      floats: floats.data.map((item) => item.embedding),
      one: Array.from(one.data[0].embedding),
      usage: list.usage,
    };
  },

  async feedback() {
    const { response } = await create({}).withResponse();
    const target = response.headers.get("x-windlass-call");
    return client.post("/feedback", { body: { target, kind: "rating", value: 1, comment: "from Node" } });
  },

  async errors() {
    const gone = new AbortController();
    gone.abort();
    const nowhere = new OpenAI({ baseURL: "http://127.0.0.1:9/v1", apiKey, maxRetries: 0, timeout: 5_000 });
    return {
      model: await failure(create({ model: "nobody" })),
      messages: await failure(create({ messages: [] })),
      role: await failure(create({ messages: [{ role: 7, content: "x" }] })),
      streamed: await failure(create({ model: "nobody", stream: true })),
      large: await failure(create({ messages: [{ role: "user", content: "x".repeat(20_000) }] })),
      upstream: await failure(create({ model: "dead" })),
      endpoint: await failure(client.images.generate({ model, prompt: "a pawl" })),
      embedder: await failure(embed({ model: "nobody" })),
      tokens: await failure(embed({ input: [[32, 4044, 75]] })),
      empty: await failure(embed({ input: ["a pawl", ""] })),
      dimensions: await failure(embed({ dimensions: 7 })),
      aborted: await failure(create({}, { signal: gone.signal })),
      nowhere: await failure(nowhere.models.list()),
    };
  },

  async keys() {
    const wrong = new OpenAI({ baseURL, apiKey: "wrong", maxRetries: 0 });
    const elsewhere = new OpenAI({ baseURL, apiKey, maxRetries: 0, defaultHeaders: { "x-windlass-workspace": "other" } });
    return {
      right: (await create({})).choices.length,
      wrong: await failure(wrong.chat.completions.create({ model, messages })),
      listed: await failure(wrong.models.list()),
      elsewhere: await failure(elsewhere.chat.completions.create({ model, messages })),
    };
  },
};

console.log(JSON.stringify(await topics[topic]()));
