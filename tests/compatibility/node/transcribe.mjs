// Asks an API for each kind of answer through OpenAI's client, and prints what came as JSON.
import OpenAI, { toFile } from "openai";

const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "unused", maxRetries: 0 });
const model = "whisper-1";
const file = () => toFile(Buffer.from("RIFF"), "a.wav");

async function streamed(content) {
  const events = [];
  const stream = await client.audio.transcriptions.create({
    model,
    file: await toFile(Buffer.from(content), "a.wav"),
    stream: true,
  });
  for await (const event of stream) events.push(event);
  return events;
}

async function refusal(work) {
  try {
    await work();
    return null;
  } catch (error) {
    return { name: error.constructor.name, status: error.status ?? null, code: error.code };
  }
}

const create = client.audio.transcriptions.create.bind(client.audio.transcriptions);
const answers = {};
answers.json = await create({ model, file: await file() });
answers.verbose = await create({
  model,
  file: await file(),
  response_format: "verbose_json",
  timestamp_granularities: ["word", "segment"],
});
answers.text = await create({ model, file: await file(), response_format: "text" });
answers.srt = await create({ model, file: await file(), response_format: "srt" });
answers.vtt = await create({ model, file: await file(), response_format: "vtt" });
answers.events = await streamed("RIFF");
answers.refused = await refusal(() => streamed("not audio"));
answers.broken = await refusal(() => streamed("breaks off"));
answers.models = (await client.models.list()).data.map((listed) => listed.id);
process.stdout.write(JSON.stringify(answers));
