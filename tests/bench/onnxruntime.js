// ONNX Runtime for tests/bench/peers.py. Usage: node onnxruntime.js JSON; prints one JSON object.
//
// JSON: {"package": folder of onnxruntime-node, "model": file, "threads": N, "batches": [...],
//        "seconds": S, "image": file of float32 (3, side, side), "side": S,
//        "check": the same as image or null}
// Rates come from the median pass, after two of warm-up, as in `vitserve bench`.
"use strict";
const fs = require("fs");
const path = require("path");

const options = JSON.parse(process.argv[2]);
const ort = require(path.resolve(options.package));

// What makes it fastest here: every graph optimisation (the constant weights are transposed and
// packed at load, LayerNorm and GELU fused), one operator at a time with all threads in it. The same
// model with its batch size fixed, so that no shape is computed at run time, measured the same.
function open() {
    return ort.InferenceSession.create(options.model, {
        executionProviders: ["cpu"],
        graphOptimizationLevel: "all",
        executionMode: "sequential",
        intraOpNumThreads: options.threads,
        interOpNumThreads: 1,
    });
}

function tensor(file, batch) {
    const bytes = fs.readFileSync(file);
    const image = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    const data = new Float32Array(batch * image.length);
    for (let i = 0; i < batch; i++)
        data.set(image, i * image.length);
    return { x: new ort.Tensor("float32", data, [batch, 3, options.side, options.side]) };
}

async function measure(session, batch) {
    const feeds = tensor(options.image, batch);
    await session.run(feeds);
    await session.run(feeds);
    const times = [];
    const begin = performance.now();
    while (performance.now() - begin < 1e3 * options.seconds) {
        const start = performance.now();
        await session.run(feeds);
        times.push(performance.now() - start);
    }
    times.sort((a, b) => a - b);
    const median = times[Math.floor(times.length / 2)];
    return { batch: batch, images_per_second: 1e3 * batch / median, ms_p50: median };
}

async function main() {
    const answer = { version: ort.env.versions.node, results: [] };
    const session = await open();
    if (options.check)
        answer.logits = Array.from((await session.run(tensor(options.check, 1))).y.data);
    for (const batch of options.batches)
        answer.results.push(await measure(session, batch));
    console.log(JSON.stringify(answer));
}

main().catch(error => { console.error(String(error)); process.exit(1); });
