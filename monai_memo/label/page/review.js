// Copyright (c) monai_memo contributors
// SPDX-License-Identifier: Apache-2.0
// The review page: a client of MONAI Label's own API (next pair, image, rating, evidence), and nothing else.
"use strict";

const KEYS = { 1: "copy", 2: "same_patient", 3: "novel", 4: "unsure" };
const element = (id) => document.getElementById(id);
const state = { rater: "", strategy: "blinded", pair: null, last: null, progress: null, plane: "axial", slices: {},
                since: 0, evidence: false, busy: false };

async function request(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    throw new Error("The server does not answer. Nothing was lost; try again when it runs.");
  }
  if (!answer.ok) {
    const text = await answer.json().then((body) => String(body.detail), () => answer.statusText);
    throw new Error(text);
  }
  return answer;
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
    element("error").textContent = error.message;
    element("error").hidden = false;
  } finally {
    state.busy = false;
    setEnabled(true);
  }
}

function setEnabled(enabled) {
  for (const button of document.querySelectorAll("#buttons button")) button.disabled = !enabled;
  for (const id of ["undo", "undo-done"]) element(id).disabled = !enabled || !state.last;
}

function show(section) {
  for (const id of ["start", "review", "done"]) element(id).hidden = id !== section;
  element("status").hidden = section === "start";
}

async function updateProgress() {
  const query = new URLSearchParams({ rater: state.rater, strategy: state.strategy });
  state.progress = await (await request(`/review/progress?${query}`)).json();
  state.last = state.progress.last;
  element("who").textContent = state.rater;
  element("bar").max = Math.max(1, state.progress.total);
  element("bar").value = state.progress.rated;
  element("count").textContent = `${state.progress.rated} of ${state.progress.total} rated`;
}

async function next() {
  await updateProgress();
  const answer = await request(`/activelearning/${state.strategy}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ rater: state.rater }),
  });
  const sample = await answer.json();
  state.pair = sample.id || null;
  if (!state.pair) return finish();
  show("review");
  element("difference").hidden = true;
  state.evidence = false;
  await showPair();
  state.since = performance.now();
}

function finish() {
  const further = state.strategy === "blinded" ? state.progress.further : 0;
  element("done-text").textContent = `You have rated ${state.progress.rated} of ${state.progress.total} pairs.`;
  element("further").hidden = !further;
  show("done");
}

// An image is waited for, so that nobody rates the one before.
async function load(image, path, options) {
  const blob = await (await request(path, options)).blob();
  const earlier = image.src;
  image.src = URL.createObjectURL(blob);
  await image.decode();
  if (earlier.startsWith("blob:")) URL.revokeObjectURL(earlier);
}

async function showPair() {
  const pair = encodeURIComponent(state.pair);
  const volume = state.progress.dimension === 3;
  element("review").classList.toggle("volume", volume);
  element("slices").hidden = !volume;
  if (!volume) {
    await load(element("picture"), `/datastore/image?image=${pair}`);
  } else {
    state.slices = {};
    for (const [plane, length] of Object.entries(state.progress.planes)) state.slices[plane] = length >> 1;
    makePlanes();
    await showSlice();
  }
  element("picture").dataset.pair = state.pair;
}

function makePlanes() {
  if (element("planes").childElementCount) return;
  for (const plane of Object.keys(state.progress.planes)) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = plane;
    button.dataset.plane = plane;
    button.addEventListener("click", () => choosePlane(plane));
    element("planes").append(button);
  }
}

let wanted = null; // the slice asked for last; those in between are left out when the wheel is faster than the network
let loading = false;

async function showSlice() {
  const length = state.progress.planes[state.plane];
  for (const button of element("planes").children) {
    button.setAttribute("aria-pressed", String(button.dataset.plane === state.plane));
  }
  element("slice").max = length - 1;
  element("slice").value = state.slices[state.plane];
  element("slice-number").textContent = `${state.slices[state.plane] + 1} of ${length}`;
  wanted = { pair: state.pair, plane: state.plane, index: state.slices[state.plane] };
  if (loading) return;
  loading = true;
  try {
    while (wanted) {
      const now = wanted;
      wanted = null;
      await load(element("picture"), `/review/slice?${new URLSearchParams(now)}`);
      if (!element("difference").hidden) await loadEvidence();
    }
  } finally {
    loading = false;
  }
}

function reported(promise) {
  promise.catch((error) => {
    element("error").textContent = error.message;
    element("error").hidden = false;
  });
}

function choosePlane(plane) {
  state.plane = plane;
  reported(showSlice());
}

function moveSlice(step) {
  const length = state.progress.planes[state.plane];
  state.slices[state.plane] = Math.min(length - 1, Math.max(0, state.slices[state.plane] + step));
  reported(showSlice());
}

async function loadEvidence() {
  const form = new FormData();
  if (state.progress.dimension === 3) {
    form.set("params", JSON.stringify({ plane: state.plane, slice: state.slices[state.plane] }));
  }
  await load(element("evidence"), `/infer/evidence?image=${encodeURIComponent(state.pair)}&output=image`,
             { method: "POST", body: form });
}

async function toggleDifference() {
  if (!element("difference").hidden) {
    element("difference").hidden = true;
    return;
  }
  await loadEvidence();
  element("difference").hidden = false;
  state.evidence = true;
}

async function send(pair, rating) {
  const seconds = Math.round((performance.now() - state.since) / 10) / 100;
  const params = { rating, rater: state.rater, strategy: state.strategy, seconds, evidence: state.evidence };
  const form = new FormData();
  form.set("params", JSON.stringify(params));
  form.set("label", new Blob([JSON.stringify(params)], { type: "application/json" }), "rating.json");
  await request(`/datastore/label?image=${encodeURIComponent(pair)}&tag=final`, { method: "PUT", body: form });
}

async function rate(rating) {
  if (!state.pair) return;
  const button = document.querySelector(`#buttons [data-rating=${rating}]`);
  button.classList.add("chosen");
  try {
    await send(state.pair, rating);
    await next();
  } finally {
    button.classList.remove("chosen");
  }
}

async function undo() {
  if (!state.last) return;
  await send(state.last, "undo");
  await next();
}

element("start-form").addEventListener("submit", (event) => {
  event.preventDefault();
  exclusively(async () => {
    state.rater = element("rater").value.trim();
    await next();
    localStorage.setItem("rater", state.rater);
  });
});
for (const button of document.querySelectorAll("#buttons button")) {
  button.addEventListener("click", () => exclusively(() => rate(button.dataset.rating)));
}
for (const id of ["undo", "undo-done"]) element(id).addEventListener("click", () => exclusively(undo));
element("show-difference").addEventListener("click", () => exclusively(toggleDifference));
element("further").addEventListener("click", () => exclusively(() => {
  state.strategy = "uncertain";
  return next();
}));
element("slice").addEventListener("input", () => {
  state.slices[state.plane] = Number(element("slice").value);
  reported(showSlice());
});
element("viewer").addEventListener("wheel", (event) => {
  if (element("slices").hidden) return;
  event.preventDefault();
  moveSlice(event.deltaY > 0 ? 1 : -1);
}, { passive: false });

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat && !event.key.startsWith("Arrow")) return;
  if (event.target.tagName === "INPUT" && event.target.type !== "range") return;
  const reviewing = !element("review").hidden;
  const key = event.key.toLowerCase();
  if (reviewing && KEYS[key]) exclusively(() => rate(KEYS[key]));
  else if (key === "u" && element("start").hidden) exclusively(undo);
  else if (reviewing && key === "d") exclusively(toggleDifference);
  else if (reviewing && !element("slices").hidden && ["arrowup", "arrowdown"].includes(key)) {
    moveSlice(key === "arrowup" ? 1 : -1);
  } else if (reviewing && !element("slices").hidden && key === "p") {
    const planes = Object.keys(state.progress.planes);
    choosePlane(planes[(planes.indexOf(state.plane) + 1) % planes.length]);
  } else return;
  event.preventDefault();
});

element("rater").value = localStorage.getItem("rater") || "";
element("rater").focus();
