// OpenAI's client for JavaScript, unmodified: prints what it gets of the server at the address given, as JSON.
const OpenAI = require("openai");

async function main() {
  const ai = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
  const messages = [{ role: "user", content: "Who is at the door?" }];
  const asked = { model: "tale", messages, max_tokens: 12, seed: 7 };
  const chat = await ai.chat.completions.create(asked);
  let streamed = "";
  for await (const chunk of await ai.chat.completions.create({ ...asked, stream: true })) {
    streamed += chunk.choices[0]?.delta?.content ?? "";
  }
  const text = await ai.completions.create({ model: "tale", prompt: "Once", max_tokens: 5, temperature: 0 });
  const vectors = await ai.embeddings.create({ model: "tale", input: ["a cat", "the king"] });
  const errors = [];
  for (const call of [
    () => ai.models.retrieve("tail"),
    () => ai.chat.completions.create({ ...asked, temperature: -1 }),
  ]) {
    try {
      await call();
      errors.push(null);
    } catch (error) {
      errors.push([error.constructor.name, error.status, error.code, error.param]);
    }
  }
  const models = (await ai.models.list()).data.map((model) => model.id);
  console.log(JSON.stringify({
    chat: chat.choices[0].message.content,
    usage: chat.usage.completion_tokens,
    streamed,
    text: text.choices[0].text,
    vectors: vectors.data.map((each) => Array.from(each.embedding)),
    errors,
    models,
  }));
}

main();
