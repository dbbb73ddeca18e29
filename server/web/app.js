"use strict";
// What a file or the server says is put into the page as text, never as markup. Addresses are
// relative, so that the page works behind a proxy that serves it under a path of its own.

const IN_FLIGHT = 4; // requests at the same time
const TRIES = 6; // of a request that a busy server refuses
const TOP_K = [1, 3, 5, 10, 20];

const $ = (id) => document.getElementById(id);

function make(tag, text) {
    const element = document.createElement(tag);
    element.textContent = text;
    return element;
}

// ---- requests -----------------------------------------------------------------------------------

// A browser that blocks storage keeps the key for this page alone.
let key = "";
try {
    key = sessionStorage.getItem("key") ?? "";
} catch {}

// What went wrong, as a sentence; status is HTTP's, 0 where there was no answer.
class Failure extends Error {
    constructor(sentence, status) {
        super(sentence);
        this.status = status;
    }
}

async function request(path, options) {
    const headers = { ...options?.headers };
    if (key)
        headers.Authorization = `Bearer ${key}`;
    try {
        return await fetch(path, { cache: "no-store", ...options, headers });
    } catch (error) {
        if (error.name === "AbortError")
            throw error;
        throw new Failure("The server gives no answer", 0);
    }
}

async function failure(response) {
    let sentence;
    try {
        sentence = (await response.json()).error;
    } catch {}
    return new Failure(sentence || `The server answers ${response.status}`, response.status);
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// Waits as long as a busy server asks for, and says so each second.
async function waitFor(response, signal, say) {
    const seconds = Math.min(Math.max(parseInt(response.headers.get("Retry-After")) || 1, 1), 60);
    for (let left = seconds; left > 0; left--) {
        say(`The server is busy: next try in ${left} s`);
        await sleep(1000);
        signal.throwIfAborted();
    }
}

// The answer to a picture, which is sent as it is: its bytes decide what it is, not its name.
async function post(path, file, signal, say) {
    try {
        await file.slice(0, 1).arrayBuffer();
    } catch {
        throw new Failure("This file cannot be read", 0);
    }
    for (let left = TRIES; ; left--) {
        say("Sending");
        const response = await request(path, {
            method: "POST",
            body: file,
            headers: { "Content-Type": "application/octet-stream" },
            signal,
        });
        if (response.ok)
            return response;
        const busy = response.status === 429 || response.status === 503;
        if (!busy || left === 1)
            throw await failure(response);
        await waitFor(response, signal, say);
    }
}

// ---- pictures -----------------------------------------------------------------------------------

// {file, part: name -> element of its card, state, abort: of its request}; the newest first.
let pictures = [];
const waiting = [];
let inFlight = 0;

function announce(text) {
    $("announcements").append(make("p", text));
    while ($("announcements").childElementCount > 20)
        $("announcements").firstChild.remove();
}

function summarize() {
    const count = (state) => pictures.filter((picture) => picture.state === state).length;
    const total = pictures.length;
    const open = total - count("done") - count("failed");
    const parts = [total === 1 ? "1 picture" : `${total} pictures`];
    if (open)
        parts.push(`${open} to go`);
    if (count("failed"))
        parts.push(`${count("failed")} failed`);
    $("summary").textContent = total ? parts.join(", ") : "No pictures yet";
    $("clear").hidden = !total;
}

// state: waiting, sending, done, failed, or locked until there is a key.
function setState(picture, state, text) {
    picture.state = state;
    picture.part.card.dataset.state = state;
    picture.part.state.textContent = text;
    picture.part.again.hidden = state !== "failed" || !picture.mayPass;
    summarize();
}

function percent(probability) {
    return typeof probability === "number" ? `${(100 * probability).toFixed(1)} %` : "not a number";
}

function predictionItem(prediction) {
    const item = document.createElement("li");
    const fill = make("span", "");
    const track = make("span", "");
    fill.style.width = `${100 * (prediction.probability ?? 0)}%`;
    track.className = "track";
    track.append(fill);
    item.append(make("span", prediction.label), make("b", percent(prediction.probability)), track);
    return item;
}

const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

function sizeText(size) {
    return size < 1e6 ? `${short.format(size / 1e3)} kB` : `${short.format(size / 1e6)} MB`;
}

// Server-Timing is `decode;dur=1.5, batch;desc="4"`.
function showTimes(list, header) {
    const times = [...header.matchAll(/([\w-]+);(?:dur=([\d.]+)|desc="([^"]*)")/g)];
    list.replaceChildren(...times.map(([, name, ms, text]) => {
        const pair = document.createElement("div");
        pair.append(make("dt", name), make("dd", ms ? `${short.format(ms)} ms` : text));
        return pair;
    }));
}

function showResult(picture, result, timing) {
    const { part, file } = picture;
    part.predictions.replaceChildren(...result.predictions.map(predictionItem));
    part.size.textContent = `${result.width} × ${result.height} px, ${sizeText(file.size)}`;
    showTimes(part.times, timing ?? "");
    part.see.hidden = !offersCrops;
    setState(picture, "done", "");
    const [best] = result.predictions;
    announce(`${file.name}: ${best.label}, ${percent(best.probability)}`);
}

function showFailure(picture, error) {
    if (error.status === 401) {
        setState(picture, "locked", "Waiting for the key");
        askForKey(error.message);
        return;
    }
    const mayPass = [0, 408, 429].includes(error.status) || error.status >= 500;
    picture.mayPass = mayPass;
    picture.part.predictions.replaceChildren();
    setState(picture, "failed", error.message);
    announce(`${picture.file.name}: ${error.message}`);
}

async function classify(picture) {
    const { signal } = picture.abort;
    const say = (text) => setState(picture, "sending", text);
    try {
        const response = await post(`classify?top_k=${$("top-k").value}`, picture.file, signal, say);
        const [result] = (await response.json()).results;
        signal.throwIfAborted();
        if (result.error)
            throw new Failure(result.error, response.status);
        showResult(picture, result, response.headers.get("Server-Timing"));
    } catch (error) {
        if (!signal.aborted)
            showFailure(picture, error instanceof Failure ? error :
                                 new Failure("The server's answer cannot be read", 0));
    }
}

function pump() {
    while (inFlight < IN_FLIGHT && waiting.length) {
        inFlight++;
        classify(waiting.shift()).finally(() => {
            inFlight--;
            pump();
        });
    }
}

// Puts a picture in the queue; what it was doing before is given up.
function enqueue(picture) {
    stop(picture);
    picture.abort = new AbortController();
    setState(picture, "waiting", "Waiting");
    waiting.push(picture);
    pump();
}

function stop(picture) {
    picture.abort.abort();
    if (waiting.includes(picture))
        waiting.splice(waiting.indexOf(picture), 1);
}

function remove(picture) {
    const next = picture.part.card.nextElementSibling ?? picture.part.card.previousElementSibling;
    stop(picture);
    picture.part.card.remove();
    pictures = pictures.filter((other) => other !== picture);
    (next?.querySelector(".remove") ?? $("files")).focus();
    summarize();
}

function clear() {
    pictures.forEach(stop);
    pictures = [];
    $("pictures").replaceChildren();
    $("files").focus();
    summarize();
}

// An address for these bytes, given back once the image has them.
function showBlob(image, blob) {
    const url = URL.createObjectURL(blob);
    const shown = new Promise((done) => {
        image.onload = () => done(true);
        image.onerror = () => done(false);
    });
    image.src = url;
    return shown.finally(() => URL.revokeObjectURL(url));
}

function makePicture(file) {
    const card = $("card").content.firstElementChild.cloneNode(true);
    const part = { card };
    for (const element of card.querySelectorAll("[class]"))
        part[element.classList[0]] = element;
    const picture = { file, part, state: "waiting", abort: new AbortController() };
    part.name.textContent = file.name;
    part.remove.setAttribute("aria-label", `Remove ${file.name}`);
    part.remove.onclick = () => remove(picture);
    part.again.onclick = () => enqueue(picture);
    part.see.onclick = () => see(picture);
    showBlob(part.preview, file).then((shown) => {
        part.preview.hidden = !shown;
    });
    return picture;
}

function add(files) {
    const fresh = Array.from(files, makePicture);
    pictures = [...fresh, ...pictures];
    $("pictures").prepend(...fresh.map((picture) => picture.part.card));
    fresh.forEach(enqueue);
}

// ---- what the model sees ------------------------------------------------------------------------

let offersCrops = true;

async function see(picture) {
    const { crop, seen, see: button, "see-error": error } = picture.part;
    error.textContent = "";
    if (picture.seeing)
        return;
    if (!crop.src) {
        picture.seeing = true;
        try {
            await loadCrop(picture, crop);
        } catch (problem) {
            error.textContent = problem.message;
            if (problem.status === 401)
                askForKey(problem.message);
        }
        picture.seeing = false;
    }
    seen.hidden = !crop.src || !seen.hidden;
    button.setAttribute("aria-expanded", String(!seen.hidden));
}

async function loadCrop(picture, crop) {
    const say = () => {};
    let response;
    try {
        response = await post("preprocess", picture.file, new AbortController().signal, say);
    } catch (error) {
        if (error.status !== 404)
            throw error;
        // A server without crops: nothing to see on any picture.
        offersCrops = false;
        pictures.forEach((other) => {
            other.part.see.hidden = true;
        });
        throw new Failure("This server does not show it", 404);
    }
    if (!await showBlob(crop, await response.blob())) {
        crop.removeAttribute("src");
        throw new Failure("The answer is no picture", 0);
    }
    crop.alt = `The ${crop.naturalWidth} × ${crop.naturalHeight} pixels that the model sees`;
}

// ---- the key ------------------------------------------------------------------------------------

function askForKey(sentence) {
    // Several requests may be refused; what is being typed stays.
    if ($("key-form").hidden) {
        $("key-form").hidden = false;
        $("key").focus();
    }
    $("key-error").textContent = sentence;
}

function useKey(event) {
    event.preventDefault();
    key = $("key").value;
    try {
        sessionStorage.setItem("key", key);
    } catch {}
    $("key-form").reset();
    $("key-form").hidden = true;
    loadModel();
    pictures.filter((picture) => picture.state === "locked").forEach(enqueue);
}

// ---- the model and the server -------------------------------------------------------------------

let modelShown = false;

function showModel(model) {
    const { architecture, runtime } = model;
    const facts = {
        Parameters: model.num_parameters_human,
        Classes: architecture.num_classes,
        "Image size": `${architecture.image_size} × ${architecture.image_size} px`,
        Precision: runtime.precision,
        Device: `${runtime.device_name} (${runtime.device})`,
        Weights: runtime.weights_source,
        Version: runtime.version,
    };
    $("model-name").textContent = model.name;
    $("facts").replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [
        make("dt", name), make("dd", value)]));
    document.title = `${model.name} · vitserve`;
    offerTopK(architecture.num_classes);
}

function offerTopK(classes) {
    const chosen = Number($("top-k").value) || 5;
    const sizes = TOP_K.filter((size) => size <= classes);
    $("top-k").replaceChildren(...sizes.map((size) => make("option", size)));
    $("top-k").value = Math.min(chosen, sizes.at(-1));
}

// Fetched rather than named in src, for the key's sake.
async function loadPie(model) {
    const response = await request("model?format=svg");
    const shown = response.ok && await showBlob($("pie"), await response.blob());
    $("pie").alt = "Parameters by form: " +
        model.forms.map((form) => `${form.form} ${form.parameters_percent} %`).join(", ");
    $("pie").hidden = !shown;
}

async function loadModel() {
    try {
        const response = await request("model");
        if (!response.ok)
            throw await failure(response);
        const model = await response.json();
        showModel(model);
        modelShown = true;
        await loadPie(model);
    } catch (error) {
        if (error.status === 401)
            askForKey(error.message);
    }
}

const READINESS = {
    ready: "Ready",
    starting: "Starting",
    draining: "Draining",
    device_failed: "Device failed",
    unreachable: "No answer",
};

async function readiness() {
    try {
        const response = await request("readyz");
        return response.ok ? "ready" : (await response.json()).code;
    } catch (error) {
        return error instanceof Failure ? "unreachable" : "unknown";
    }
}

// Asks again and again, often while something is about to change.
async function watch() {
    const state = document.hidden ? $("readiness").dataset.state : await readiness();
    if (state !== $("readiness").dataset.state) {
        $("readiness").dataset.state = state;
        $("readiness").textContent = READINESS[state] ?? "Not ready";
        // It may come back with another model.
        modelShown &&= state === "ready";
    }
    if (state === "ready" && !modelShown && $("key-form").hidden)
        await loadModel();
    setTimeout(watch, state === "ready" ? 10000 : 1000);
}

// A link does not carry the key.
async function follow(event) {
    if (!key)
        return;
    event.preventDefault();
    let url = event.target.href;
    try {
        const response = await request(url);
        const text = [await response.text()];
        url = URL.createObjectURL(new Blob(text, { type: "text/plain;charset=utf-8" }));
    } catch {}
    location.assign(url);
}

// ---- events -------------------------------------------------------------------------------------

const holdsFiles = (event) => event.dataTransfer.types.includes("Files");

function dragging(on) {
    document.body.classList.toggle("dragging", on);
}

document.addEventListener("dragover", (event) => {
    if (holdsFiles(event)) {
        event.preventDefault();
        dragging(true);
    }
});
document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget)
        dragging(false);
});
document.addEventListener("drop", (event) => {
    dragging(false);
    if (holdsFiles(event)) {
        event.preventDefault();
        add(event.dataTransfer.files);
    }
});
document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) {
        event.preventDefault();
        add(event.clipboardData.files);
    }
});
$("files").addEventListener("change", () => {
    add($("files").files);
    // So that the same file can be chosen again.
    $("files").value = "";
});
$("top-k").addEventListener("change", () => {
    pictures.filter((picture) => picture.state !== "failed").reverse().forEach(enqueue);
});
$("clear").addEventListener("click", clear);
$("key-form").addEventListener("submit", useKey);

for (const link of document.querySelectorAll(".links a"))
    link.addEventListener("click", follow);

offerTopK(5);
watch();
