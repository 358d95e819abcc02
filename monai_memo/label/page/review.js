// Copyright (c) monai_memo contributors
// SPDX-License-Identifier: Apache-2.0
// The review page: the next pair, its images, a rating. Served by monai-memo itself or beside MONAI Label's API.
import { MODES, TOOLS, Viewer } from "./viewer.js";
import { PLANES } from "./planes.js";

const RATINGS = { 1: "copy", 2: "same_patient", 3: "novel", 4: "unsure" };
const element = (id) => document.getElementById(id);
const all = (query) => document.querySelectorAll(query);
const state = { rater: "", strategy: "blinded", pair: null, last: null, lastTime: null, progress: null, since: 0, busy: false };
const viewer = new Viewer(element("picture"), shown);

// Talking to the server

async function request(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    throw new Error("The server does not answer. Nothing was lost; try again when it runs.");
  }
  if (!answer.ok) {
    const text = await answer.json().then((body) => String(body.detail), () => answer.statusText);
    throw Object.assign(new Error(text), { status: answer.status });
  }
  return answer;
}

const asked = async (name, query = {}) => (await request(`${name}?${new URLSearchParams(query)}`)).json();

async function fetchPair(pair) {
  const told = await asked("pair", { pair });
  const answer = await request(`pixels?${new URLSearchParams({ pair })}`);
  const content = await answer.arrayBuffer().catch(() => { throw new Error("The images did not arrive whole. Try again: load this page anew."); });
  const points = told.shape.reduce((product, length) => product * length, told.channels);
  if (content.byteLength !== 4 * points) throw new Error("The images of this pair are damaged. Tell who runs the server.");
  const values = new Uint16Array(content);
  return { ...told, synthetic: values.subarray(0, points), training: values.subarray(points) };
}

// The pair after this one is fetched while the rater looks.
const fetched = new Map();
function fetchedPair(pair) {
  if (!fetched.has(pair)) {
    const promise = fetchPair(pair);
    promise.catch(() => fetched.delete(pair));
    fetched.set(pair, promise);
  }
  return fetched.get(pair);
}

function keepOnly(...pairs) {
  for (const pair of fetched.keys()) if (!pairs.includes(pair)) fetched.delete(pair);
}

// One thing at a time: a second key press while a rating is on its way would rate a pair that nobody has seen.
async function exclusively(action) {
  if (state.busy) return;
  state.busy = true;
  setEnabled(false);
  element("error").hidden = true;
  try {
    await action();
  } catch (error) {
    say(error.message);
  } finally {
    state.busy = false;
    setEnabled(true);
  }
}

function say(text) {
  element("error").textContent = text;
  element("error").hidden = false;
}

function setEnabled(enabled) {
  for (const button of all("#buttons [data-rating]")) button.disabled = !enabled;
  for (const id of ["undo", "undo-done"]) element(id).disabled = !enabled || !state.last;
}

function show(section) {
  for (const id of ["start", "review", "done"]) element(id).hidden = id !== section;
  element("status").hidden = section === "start";
  if (section !== "review") setFull(false);
}

// The course of a review

async function updateProgress() {
  state.progress = await asked("progress", { rater: state.rater, strategy: state.strategy });
  state.last = state.progress.last;
  state.lastTime = state.progress.last_time;
  element("who").textContent = state.rater;
  element("bar").max = Math.max(1, state.progress.total);
  element("bar").value = state.progress.rated;
  const done = state.strategy === "adjudication" ? "settled" : "rated";
  element("count").textContent = `${state.progress.rated} of ${state.progress.total} ${done}`;
  element("left-out").hidden = !state.progress.left_out;
  element("left-out").textContent = leftOut(state.progress.left_out);
}

const leftOut = (number) => `${number} pair${number === 1 ? " is" : "s are"} left out: ` +
  "files on the server are damaged. Its window names them; tell whoever runs it.";

async function next(refused = null) {
  state.pair = null; // nobody rates a pair before it is there
  await updateProgress();
  const { id, then } = await asked("next", { rater: state.rater, strategy: state.strategy });
  if (!id) return finish();
  show("review");
  element("task").hidden = state.strategy !== "adjudication";
  keepOnly(id, then);
  element("loading").hidden = false;
  try {
    viewer.load(await fetchedPair(id));
  } catch (error) {
    if (error.status !== 500 || id === refused) throw error;
    say(error.message); // the server leaves this pair out now
    return await next(id);
  } finally {
    element("loading").hidden = true;
  }
  state.pair = id;
  state.since = performance.now();
  if (then) fetchedPair(then).catch(() => {});
}

function finish() {
  viewer.stopFlicker();
  const settling = state.strategy === "adjudication";
  element("done-text").textContent = `You have rated ${state.progress.rated} of ${state.progress.total} pairs.`;
  if (settling) element("done-text").textContent = `${state.progress.rated} of ${state.progress.total} pairs on which raters differ are settled.`;
  element("further").hidden = state.strategy !== "blinded" || !state.progress.further;
  show("done");
}

async function send(pair, rating) {
  const seconds = Math.round((performance.now() - state.since) / 10) / 100;
  const body = { pair, rating, rater: state.rater, strategy: state.strategy, seconds, evidence: viewer.differenceSeen };
  if (rating === "undo") body.replaces = state.lastTime; // this rating, and none that came after it from another window
  try {
    await request("rating", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  } catch (error) {
    if (![409, 500].includes(error.status)) throw error;
    return error.message; // rated from another window meanwhile, or not to be stored
  }
  return null;
}

// A rater whose rating was refused is told, and goes on.
async function goOn(pair, refused) {
  await next();
  if (refused) say(state.pair === pair ? refused : `The pair before this one: ${refused}`);
}

async function rate(rating) {
  if (!state.pair) return next(); // the pair had not come: nothing to rate, try again
  const button = document.querySelector(`#buttons [data-rating=${rating}]`);
  button.classList.add("chosen");
  try {
    const pair = state.pair;
    await goOn(pair, await send(pair, rating));
  } finally {
    button.classList.remove("chosen");
  }
}

async function undo() {
  if (!state.last) return;
  const pair = state.last;
  await goOn(pair, await send(pair, "undo"));
}

// The first page

const percent = (part, whole) => `${part} of ${whole} (${Math.round(100 * part / whole)} %)`;
const kappa = (found) => found === null ? "not defined" : found.toFixed(2);

async function showAgreement() {
  const found = await asked("agreement");
  const begun = found.finished + found.under_way;
  element("agreement").hidden = begun === 0;
  const raters = (number) => `${number} rater${number === 1 ? "" : "s"}`;
  let text = `${raters(found.finished)} finished, ${found.under_way} under way.`;
  if (found.agreement.length) text += ` Raters who finished differ on ${found.disputed} pair${found.disputed === 1 ? "" : "s"}; ${found.disputed - found.open} of them settled.`;
  else text += " Agreement is shown when two raters have rated all pairs.";
  element("agreement-text").textContent = text;
  const body = element("agreement-table").tBodies[0];
  body.replaceChildren(...found.agreement.map((row) => {
    const line = document.createElement("tr");
    for (const cell of [row.raters.join(" and "), percent(row.same, row.pairs), kappa(row.kappa_two), kappa(row.kappa_four)]) {
      line.append(Object.assign(document.createElement("td"), { textContent: cell }));
    }
    return line;
  }));
  for (const id of ["agreement-table", "agreement-note"]) element(id).hidden = !found.agreement.length;
  element("table-link").hidden = !found.table;
  element("first-left-out").hidden = !found.left_out;
  element("first-left-out").textContent = leftOut(found.left_out);
  element("settle").hidden = !found.open;
  element("settle").textContent = `Settle ${found.open} pair${found.open === 1 ? "" : "s"} on which raters differ`;
}

element("start-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const strategy = event.submitter?.value || "blinded";
  exclusively(async () => {
    state.rater = element("rater").value.trim();
    state.strategy = strategy;
    await next();
    localStorage.setItem("rater", state.rater);
  });
});
element("home").addEventListener("click", () => exclusively(async () => {
  await showAgreement();
  show("start");
}));

// The viewer's tools. What is set stands on the toolbar.

function shown() {
  if (!viewer.pair) return;
  const volume = viewer.dims === 3;
  for (const button of all("[data-mode]")) button.setAttribute("aria-pressed", String(button.dataset.mode === viewer.mode));
  for (const button of all("[data-tool]")) {
    button.setAttribute("aria-pressed", String(button.dataset.tool === viewer.tool));
    button.hidden = button.dataset.tool === "crosshair" && !volume;
  }
  for (const button of all("[data-plane]")) button.setAttribute("aria-pressed", String(button.dataset.plane === viewer.shown));
  for (const id of ["planes", "slice-box"]) element(id).hidden = !volume;
  element("opacity-box").hidden = viewer.mode !== "overlay";
  element("flicker-box").hidden = viewer.mode !== "flicker";
  element("play").textContent = viewer.timer ? "Stop" : "Play";
  element("opacity").value = viewer.opacity;
  element("level").value = viewer.level;
  element("width").value = viewer.width;
  element("zoom").textContent = `${viewer.zoom.toFixed(viewer.zoom < 10 ? 1 : 0)}x`;
  const picture = element("picture");
  picture.dataset.tool = viewer.tool;
  let said = { side: "synthetic image and training image side by side", flicker: `${viewer.showing} image`,
               overlay: "training image over synthetic image",
               difference: "difference of the two images: purple where the synthetic one is darker, orange where it is brighter" }[viewer.mode];
  if (volume) {
    element("slice").max = viewer.slices - 1;
    element("slice").value = viewer.slice;
    element("slice-name").textContent = viewer.active[0].toUpperCase() + viewer.active.slice(1);
    element("slice-number").textContent = `${viewer.slice + 1} of ${viewer.slices}`;
    said += `, ${viewer.planes.join(", ")}`;
  }
  if (picture.getAttribute("aria-label") !== said) picture.setAttribute("aria-label", said);
}

function reset() {
  viewer.setWindow(0.5, 1);
  viewer.fit();
}

// Full screen: the images, the ratings, and nothing else. It also works where the browser does not allow it.
function setFull(wanted) {
  document.body.classList.toggle("immersive", wanted);
  if (wanted && !document.fullscreenElement) document.documentElement.requestFullscreen?.().catch(() => {});
  if (!wanted && document.fullscreenElement) document.exitFullscreen().catch(() => {});
}
document.addEventListener("fullscreenchange", () => {
  if (!document.fullscreenElement) setFull(false);
});

const following = (names, name) => names[(names.indexOf(name) + 1) % names.length];
const chosenTools = () => viewer.dims === 3 ? TOOLS : TOOLS.slice(0, 2);

// Every key: what it is called, what it says in the help, for which images, and what it does.
const KEYS = [
  ["s", "S", "side by side", 0, () => viewer.setMode("side")],
  ["x", "X", "flicker: start, stop", 0, () => viewer.toggleFlicker()],
  [" ", "Space", "flicker: the other image", 0, () => viewer.swap()],
  ["o", "O", "overlay", 0, () => viewer.setMode("overlay")],
  [",", ", (comma)", "overlay: less of the training image", 0, () => viewer.setOpacity(viewer.opacity - 0.1)],
  [".", ". (dot)", "overlay: more of it", 0, () => viewer.setOpacity(viewer.opacity + 0.1)],
  ["d", "D", "difference", 0, () => viewer.setMode(viewer.mode === "difference" ? "side" : "difference")],
  ["t", "T", "next tool for dragging", 0, () => viewer.setTool(following(chosenTools(), viewer.tool))],
  ["+", "+", "larger", 0, () => viewer.zoomBy(1.25)],
  ["-", "-", "smaller", 0, () => viewer.zoomBy(0.8)],
  ["n", "N", "1:1, as the file has it", 0, () => viewer.native()],
  ["0", "0", "whole image, window as at first", 0, reset],
  ["b", "B", "brighter", 0, () => viewer.setWindow(viewer.level - viewer.width / 20, viewer.width)],
  ["v", "V", "darker", 0, () => viewer.setWindow(viewer.level + viewer.width / 20, viewer.width)],
  ["c", "C", "more contrast", 0, () => viewer.setWindow(viewer.level, viewer.width / 1.1)],
  ["k", "K", "less contrast", 0, () => viewer.setWindow(viewer.level, viewer.width * 1.1)],
  ["f", "F", "full screen", 0, () => setFull(!document.body.classList.contains("immersive"))],
  ["escape", "", "", 0, () => setFull(false)],
  ["p", "P", "all planes, axial, coronal, sagittal", 3, () => viewer.show(following(["all", ...PLANES], viewer.shown))],
  ["a", "A", "next active plane", 3, () => viewer.setActive(following(viewer.planes, viewer.active))],
  ["arrowup", "Up, Down", "next slice, slice before", 3, () => viewer.setSlice(viewer.slice + 1)],
  ["arrowdown", "", "", 3, () => viewer.setSlice(viewer.slice - 1)],
  ["pageup", "Page up, down", "ten slices", 3, () => viewer.setSlice(viewer.slice + 10)],
  ["pagedown", "", "", 3, () => viewer.setSlice(viewer.slice - 10)],
  ["g", "G", "crosshair on, off", 3, () => viewer.toggleLines()],
];
const ARROWS = { arrowleft: [-0.1, 0], arrowright: [0.1, 0], arrowup: [0, -0.1], arrowdown: [0, 0.1] };

function showHelp() {
  const rows = [["1 2 3 4", "copy, same patient, novel, unsure"], ["U", "take the last rating back"],
                [viewer.dims === 3 ? "Shift + arrows" : "arrows", "move the images"], ["H or ?", "this help"]];
  for (const [, name, words, dims] of KEYS) if (name && (dims === 0 || dims === viewer.dims)) rows.push([name, words]);
  element("keys").replaceChildren(...rows.flatMap(([name, words]) => {
    const key = document.createElement("dt"), said = document.createElement("dd");
    key.append(Object.assign(document.createElement("kbd"), { textContent: name }));
    said.textContent = words;
    return [key, said];
  }));
  element("wheel-help").textContent = viewer.dims === 3 ? "Wheel: slices; with Ctrl: zoom." : "Wheel: zoom.";
  element("help").showModal();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || element("help").open) return;
  const target = event.target, key = event.key.toLowerCase();
  if (target.tagName === "INPUT" && target.type !== "range") return;
  if (target.tagName === "INPUT" && key.startsWith("arrow")) return; // a slider has the arrows to itself
  if (target.tagName === "BUTTON" && [" ", "enter"].includes(key)) return;
  const reviewing = !element("review").hidden;
  const rating = reviewing && RATINGS[key];
  if (event.repeat && (rating || "uxf ".includes(key))) return event.preventDefault();
  if (rating) exclusively(() => rate(rating));
  else if (key === "u" && element("start").hidden) exclusively(undo);
  else if (!reviewing || !viewer.pair) return;
  else if (key === "h" || key === "?") showHelp();
  else if (ARROWS[key] && (viewer.dims === 2 || event.shiftKey)) viewer.pan(...ARROWS[key]);
  else {
    const found = KEYS.find(([name, , , dims]) => name === (key === "=" ? "+" : key) && (dims === 0 || dims === viewer.dims));
    if (!found) return;
    found[4]();
  }
  event.preventDefault();
});

for (const button of all("#buttons [data-rating]")) button.addEventListener("click", () => exclusively(() => rate(button.dataset.rating)));
for (const id of ["undo", "undo-done"]) element(id).addEventListener("click", () => exclusively(undo));
element("further").addEventListener("click", () => exclusively(() => {
  state.strategy = "uncertain";
  return next();
}));
for (const mode of MODES) {
  document.querySelector(`[data-mode=${mode}]`).addEventListener("click", () => mode === "flicker" ? viewer.toggleFlicker() : viewer.setMode(mode));
}
for (const button of all("[data-plane]")) button.addEventListener("click", () => viewer.show(button.dataset.plane));
for (const button of all("[data-tool]")) button.addEventListener("click", () => viewer.setTool(button.dataset.tool));
const clicks = { swap: () => viewer.swap(), play: () => viewer.toggleFlicker(), fit: reset, native: () => viewer.native(),
                 "zoom-in": () => viewer.zoomBy(1.25), "zoom-out": () => viewer.zoomBy(0.8), full: () => setFull(true), leave: () => setFull(false),
                 "show-help": showHelp, "close-help": () => element("help").close() };
for (const [id, action] of Object.entries(clicks)) element(id).addEventListener("click", action);
const slides = { opacity: (value) => viewer.setOpacity(value), level: (value) => viewer.setWindow(value, viewer.width),
                 width: (value) => viewer.setWindow(viewer.level, value), slice: (value) => viewer.setSlice(value) };
for (const [id, action] of Object.entries(slides)) element(id).addEventListener("input", () => action(Number(element(id).value)));

element("rater").value = localStorage.getItem("rater") || "";
element("rater").focus();
showAgreement().catch(() => {}); // the review goes on without it
