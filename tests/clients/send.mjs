// Posts a file with Node's fetch. A line for each try: the status, or what went wrong.
// usage: node send.mjs TRIES URL FILE length|chunked

import { readFile } from "node:fs/promises";

const [tries, url, file, way] = process.argv.slice(2);
const data = await readFile(file);

function body() {
  if (way !== "chunked") return data;
  let at = 0;
  return new ReadableStream({
    pull(controller) {
      if (at >= data.length) return controller.close();
      controller.enqueue(data.subarray(at, at + 65536));
      at += 65536;
    },
  });
}

for (let i = 0; i < Number(tries); i++) {
  try {
    const answer = await fetch(url, {
      method: "POST",
      headers: { Authorization: "Bearer wrong" },
      body: body(),
      duplex: "half",
    });
    await answer.arrayBuffer();
    console.log(answer.status);
  } catch (error) {
    console.log(`${error}: ${error.cause}`);
  }
}
