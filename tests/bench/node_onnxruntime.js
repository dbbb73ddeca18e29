// The server that one would write with Node, ONNX Runtime and sharp, for tests/bench/peers.py load.
// Usage: node node_onnxruntime.js JSON; prints the address when it is ready: POST /classify, answered
// in vitserve's shape.
//
// JSON: {"packages": folder of onnxruntime-node and sharp, "model": file, "threads": N,
//        "batch": most images of a batch, "side": S}
//
// What makes it fast here: the session in the settings of onnxruntime.js; whatever waits is computed
// in one batch, without a delay; libvips, behind sharp, decodes and resizes on Node's pool of
// threads, one thread a picture. Its linear kernel is the one nearest to torchvision's.
"use strict";
const http = require("http");
const path = require("path");

const options = JSON.parse(process.argv[2]);
const ort = require(path.resolve(options.packages, "onnxruntime-node"));
const sharp = require(path.resolve(options.packages, "sharp"));
sharp.concurrency(1);
sharp.cache(false);

const MEAN = [0.485, 0.456, 0.406], STD = [0.229, 0.224, 0.225];
const RESIZE = 256;
const pixels = options.side * options.side;
const waiting = []; // {picture, resolve, reject}
let session, running = false;

// Byte -> normalised value, for each channel.
const tables = MEAN.map((mean, c) => Float32Array.from({ length: 256 },
    (_, value) => (value / 255 - mean) / STD[c]));

// The picture's middle, as torchvision cuts it: bytes in RGB order.
function crop(body) {
    const margin = (RESIZE - options.side) / 2;
    return sharp(body).resize(RESIZE, RESIZE, { fit: "cover", kernel: "linear" })
        .extract({ left: margin, top: margin, width: options.side, height: options.side })
        .removeAlpha().toColourspace("srgb").raw().toBuffer();
}

function normalise(bytes, into, offset) {
    for (let c = 0; c < 3; c++)
        for (let i = 0; i < pixels; i++)
            into[offset + c * pixels + i] = tables[c][bytes[3 * i + c]];
}

async function compute(jobs) {
    const data = new Float32Array(jobs.length * 3 * pixels);
    jobs.forEach((job, i) => normalise(job.picture, data, i * 3 * pixels));
    const x = new ort.Tensor("float32", data, [jobs.length, 3, options.side, options.side]);
    const y = (await session.run({ x })).y;
    const classes = y.dims[1];
    jobs.forEach((job, i) => job.resolve(y.data.subarray(i * classes, (i + 1) * classes)));
}

async function computeWaiting() {
    if (running)
        return;
    running = true;
    while (waiting.length > 0) {
        const jobs = waiting.splice(0, options.batch);
        await compute(jobs).catch(error => jobs.forEach(job => job.reject(error)));
    }
    running = false;
}

function logitsOf(picture) {
    return new Promise((resolve, reject) => {
        waiting.push({ picture, resolve, reject });
        computeWaiting();
    });
}

function predictions(logits) {
    const most = Math.max(...logits);
    const powers = Array.from(logits, value => Math.exp(value - most));
    const sum = powers.reduce((a, b) => a + b);
    return powers.map((power, i) => ({ class: i, probability: power / sum }))
        .sort((a, b) => b.probability - a.probability).slice(0, 5);
}

async function classify(request, response) {
    const chunks = [];
    for await (const chunk of request)
        chunks.push(chunk);
    let status = 200, answer;
    try {
        const logits = await logitsOf(await crop(Buffer.concat(chunks)));
        const result = { predictions: predictions(logits) };
        if (request.url.includes("logits"))
            result.logits = Array.from(logits);
        answer = { results: [result] };
    } catch (error) {
        status = 400;
        answer = { error: String(error) };
    }
    const text = JSON.stringify(answer);
    response.writeHead(status, { "Content-Type": "application/json",
        "Content-Length": Buffer.byteLength(text) });
    response.end(text);
}

async function main() {
    session = await ort.InferenceSession.create(options.model, {
        executionProviders: ["cpu"],
        graphOptimizationLevel: "all",
        executionMode: "sequential",
        intraOpNumThreads: options.threads,
        interOpNumThreads: 1,
    });
    const server = http.createServer((request, response) => {
        classify(request, response).catch(() => response.destroy());
    });
    server.listen(0, "127.0.0.1", 1024,
        () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
}

main().catch(error => { console.error(String(error)); process.exit(1); });
