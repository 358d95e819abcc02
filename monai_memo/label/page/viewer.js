// Copyright (c) monai_memo contributors
// SPDX-License-Identifier: Apache-2.0
// The viewer: two images of one pair on one canvas. Zoom, place, window, slice and crosshair are always those of both.
import { LAYOUT, PLANES, arranged, paint, paintDifference, shades, slice } from "./planes.js";

export const MODES = ["side", "flicker", "overlay", "difference"];
export const TOOLS = ["move", "window", "crosshair"];
const NAMES = { synthetic: "synthetic", training: "training" };
const GAP = 6; // CSS pixels between panels
const FLICKER = 500; // ms; two changes a second stay well below what can harm (three flashes a second)
const LARGEST_ZOOM = 64;
const between = (value, low, high) => Math.min(high, Math.max(low, value));

export class Viewer {
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
    this.changed = changed;
    this.pair = null;
    this.pointers = new Map();
    this.painted = new Map(); // pictures of slices, by image and plane
    this.reset();
    new ResizeObserver(() => this.draw()).observe(canvas);
    canvas.addEventListener("pointerdown", (event) => this.pressed(event));
    canvas.addEventListener("pointermove", (event) => this.moved(event));
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    }
    canvas.addEventListener("wheel", (event) => this.wheeled(event), { passive: false });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("dblclick", () => this.fit());
  }

  // Everything as it is for a new pair.
  reset() {
    this.stopFlicker();
    Object.assign(this, { mode: "side", showing: "synthetic", opacity: 0.5, low: 0, high: 1, zoom: 1,
                          differenceSeen: false, lines: true });
    const dims = this.pair ? this.pair.shape.length : 2;
    this.centre = Array(dims).fill(0.5); // of each axis, from 0 to 1
    this.shown = dims === 3 ? "all" : "picture";
    this.active = dims === 3 ? "axial" : "picture";
    this.tool = dims === 3 ? "crosshair" : "move";
    this.cross = this.pair ? this.pair.shape.map((length) => length >> 1) : [];
  }

  load(pair) {
    this.pair = pair;
    this.painted.clear();
    this.reset();
    this.draw();
  }

  get dims() { return this.pair ? this.pair.shape.length : 2; }
  get planes() { return this.dims === 2 ? ["picture"] : this.shown === "all" ? PLANES : [this.shown]; }

  // What the user asks for

  setMode(mode) {
    if (mode !== "flicker") this.stopFlicker();
    this.mode = mode;
    this.differenceSeen ||= mode === "difference";
    this.draw();
  }

  // The other image in the same place, once.
  swap() {
    this.stopFlicker();
    this.mode = "flicker";
    this.showing = this.showing === "synthetic" ? "training" : "synthetic";
    this.draw();
  }

  toggleFlicker() {
    if (this.timer) {
      this.stopFlicker();
    } else {
      this.mode = "flicker";
      this.timer = setInterval(() => {
        this.showing = this.showing === "synthetic" ? "training" : "synthetic";
        this.draw();
      }, FLICKER);
    }
    this.draw();
  }

  stopFlicker() {
    clearInterval(this.timer);
    this.timer = null;
  }

  setOpacity(value) {
    this.opacity = between(value, 0, 1);
    this.draw();
  }

  setWindow(level, width) {
    const half = between(width, 0.01, 4) / 2, middle = between(level, -0.5, 1.5);
    [this.low, this.high] = [middle - half, middle + half];
    this.draw();
  }

  get level() { return (this.low + this.high) / 2; }
  get width() { return this.high - this.low; }

  fit() {
    this.zoom = 1;
    this.centre.fill(0.5);
    this.draw();
  }

  // One pixel of the finer axis of the image for one of the screen.
  native() {
    const { shape, extent } = this.pair;
    const finest = Math.max(...shape.map((points, axis) => points / extent[axis]));
    this.zoom = between(finest / (this.arrangement().scale * devicePixelRatio), 0.05, LARGEST_ZOOM);
    this.draw();
  }

  zoomBy(factor, at = null) {
    const before = at && this.placeOf(at.panel, at.x, at.y);
    this.zoom = between(this.zoom * factor, 0.25, LARGEST_ZOOM);
    if (before) { // what lies under the pointer stays there
      const after = this.placeOf(at.panel, at.x, at.y);
      for (const axis of Object.keys(before)) this.centre[axis] += before[axis] - after[axis];
    }
    this.keepInside();
    this.draw();
  }

  // By a share of the panel, as arrow keys do it.
  pan(across, down) {
    const lies = LAYOUT[this.active];
    this.centre[lies.across] += across / this.zoom * (lies.turnAcross ? -1 : 1);
    this.centre[lies.down] += down / this.zoom * (lies.turnDown ? -1 : 1);
    this.keepInside();
    this.draw();
  }

  keepInside() {
    this.centre = this.centre.map((place) => between(place, 0, 1));
  }

  setTool(tool) {
    this.tool = tool;
    this.draw();
  }

  toggleLines() {
    this.lines = !this.lines;
    this.draw();
  }

  show(planes) {
    this.shown = planes;
    if (planes !== "all") this.active = planes;
    this.draw();
  }

  setActive(plane) {
    this.active = plane;
    this.draw();
  }

  setSlice(index, plane = this.active) {
    const axis = LAYOUT[plane].fixed;
    if (axis === null) return;
    this.cross[axis] = between(index, 0, this.pair.shape[axis] - 1);
    this.draw();
  }

  get slice() { return this.dims === 3 ? this.cross[LAYOUT[this.active].fixed] : 0; }
  get slices() { return this.dims === 3 ? this.pair.shape[LAYOUT[this.active].fixed] : 1; }

  // Where things are

  panels() {
    const images = this.mode === "side" ? Object.keys(NAMES) : [this.mode === "flicker" ? this.showing : "both"];
    return images.flatMap((image) => this.planes.map((plane) => ({ image, plane })));
  }

  arrangement() {
    const { extent } = this.pair;
    const panels = this.panels();
    const sizes = panels.map(({ plane }) => [extent[LAYOUT[plane].across], extent[LAYOUT[plane].down]]);
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const planes = this.planes.length;
    let choices = panels.length === 1 ? [1] : planes === 1 ? [2, 1] : this.mode === "side" ? [3] : [3, 2, 1];
    let found = arranged(sizes, width, height, choices, GAP);
    if (planes === 3 && this.mode === "side") { // images beside one another, planes below one another
      const turned = [0, 3, 1, 4, 2, 5];
      const other = arranged(turned.map((i) => sizes[i]), width, height, [2], GAP);
      if (other.scale > found.scale) found = { ...other, places: panels.map((_, i) => other.places[turned.indexOf(i)]) };
    }
    found.panels = panels.map((panel, i) => ({ ...panel, ...found.places[i] }));
    return found;
  }

  // The picture of a panel: where its image begins on the canvas, and how large it is.
  frame(panel, scale) {
    const lies = LAYOUT[panel.plane], { extent } = this.pair;
    const width = extent[lies.across] * scale * this.zoom, height = extent[lies.down] * scale * this.zoom;
    const across = lies.turnAcross ? 1 - this.centre[lies.across] : this.centre[lies.across];
    const down = lies.turnDown ? 1 - this.centre[lies.down] : this.centre[lies.down];
    return { x: panel.x + panel.width / 2 - across * width, y: panel.y + panel.height / 2 - down * height, width, height };
  }

  panelAt(x, y) {
    const { panels, scale } = this.arrangement();
    const panel = panels.find((p) => x >= p.x && x < p.x + p.width && y >= p.y && y < p.y + p.height);
    return panel && { ...panel, scale };
  }

  // Share of both axes, 0 to 1, at a point of the canvas.
  placeOf(panel, x, y) {
    const lies = LAYOUT[panel.plane], frame = this.frame(panel, panel.scale);
    const across = (x - frame.x) / frame.width, down = (y - frame.y) / frame.height;
    return { [lies.across]: lies.turnAcross ? 1 - across : across, [lies.down]: lies.turnDown ? 1 - down : down };
  }

  // Pointers

  pressed(event) {
    if (!this.pair) return;
    const panel = this.panelAt(event.offsetX, event.offsetY);
    if (!panel) return;
    event.preventDefault();
    try { this.canvas.setPointerCapture(event.pointerId); } catch { /* a pointer that has gone already */ }
    this.active = panel.plane;
    const tool = event.button === 2 ? "window" : event.button === 1 || event.shiftKey ? "move" : this.tool;
    this.pointers.set(event.pointerId, { x: event.offsetX, y: event.offsetY, panel, tool });
    if (tool === "crosshair") this.cross3(panel, event.offsetX, event.offsetY);
    this.draw();
  }

  moved(event) {
    const pointer = this.pointers.get(event.pointerId);
    if (!pointer) return;
    const before = { ...pointer };
    Object.assign(pointer, { x: event.offsetX, y: event.offsetY });
    const across = pointer.x - before.x, down = pointer.y - before.y;
    if (this.pointers.size === 2) {
      const other = [...this.pointers.values()].find((item) => item !== pointer);
      const distance = (item) => Math.max(10, Math.hypot(item.x - other.x, item.y - other.y));
      this.zoomBy(distance(pointer) / distance(before), { panel: pointer.panel, x: other.x, y: other.y });
    } else if (pointer.tool === "window") {
      this.setWindow(this.level - down / 300 * this.width, this.width * Math.exp(across / 200));
    } else if (pointer.tool === "crosshair") {
      this.cross3(pointer.panel, pointer.x, pointer.y);
    } else {
      const from = this.placeOf(pointer.panel, before.x, before.y), to = this.placeOf(pointer.panel, pointer.x, pointer.y);
      for (const axis of Object.keys(from)) this.centre[axis] += from[axis] - to[axis];
      this.keepInside();
      this.draw();
    }
  }

  cross3(panel, x, y) {
    if (this.dims !== 3) return;
    for (const [axis, share] of Object.entries(this.placeOf(panel, x, y))) {
      this.cross[axis] = between(Math.floor(share * this.pair.shape[axis]), 0, this.pair.shape[axis] - 1);
    }
    this.draw();
  }

  wheeled(event) {
    const panel = this.pair && this.panelAt(event.offsetX, event.offsetY);
    if (!panel) return;
    event.preventDefault();
    this.active = panel.plane;
    if (this.dims === 3 && !event.ctrlKey) {
      this.turned = (this.turned || 0) + event.deltaY * (event.deltaMode === 0 ? 1 : 40);
      const steps = Math.trunc(this.turned / 40);
      this.turned -= steps * 40;
      this.setSlice(this.slice + steps);
    } else {
      const by = between(event.deltaY * (event.deltaMode === 0 ? 1 : 40), -200, 200);
      this.zoomBy(Math.exp(-by / 400), { panel, x: event.offsetX, y: event.offsetY });
    }
  }

  // Drawing

  draw() {
    this.wanted ||= requestAnimationFrame(() => {
      this.wanted = null;
      this.drawNow();
    });
    this.changed(this);
  }

  // The picture of one slice. It is painted anew only when the slice or the window has changed.
  picture(image, plane) {
    const { shape, grey } = this.pair;
    const index = this.dims === 3 ? this.cross[LAYOUT[plane].fixed] : 0;
    const key = `${index} ${this.low} ${this.high}`;
    const kept = this.painted.get(`${image} ${plane}`) || {};
    if (kept.key === key) return kept.canvas;
    const table = shades(grey, this.low, this.high);
    const parts = (image === "difference" ? ["synthetic", "training"] : [image])
      .map((name) => slice(this.pair[name], shape, plane, index));
    const { rows, columns } = parts[0];
    const canvas = kept.canvas || document.createElement("canvas");
    if (canvas.width !== columns || canvas.height !== rows) [canvas.width, canvas.height] = [columns, rows];
    const context = canvas.getContext("2d", { alpha: false });
    const filled = context.createImageData(columns, rows);
    const pixels = new Uint32Array(filled.data.buffer);
    if (image === "difference") paintDifference(pixels, parts[0].values, parts[1].values, table);
    else paint(pixels, parts[0].values, table);
    context.putImageData(filled, 0, 0);
    this.painted.set(`${image} ${plane}`, { key, canvas });
    return canvas;
  }

  drawNow() {
    const { canvas, context } = this;
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    if (!this.pair || !width || !height) return;
    const { panels, scale } = this.arrangement();
    for (const panel of panels) this.drawPanel(panel, scale);
    Object.assign(canvas.dataset, {
      pair: this.pair.id, mode: this.mode, showing: this.showing, zoom: this.zoom.toFixed(3),
      low: this.low.toFixed(3), high: this.high.toFixed(3), cross: this.cross.join(" "), planes: this.planes.join(" "),
      opacity: this.opacity.toFixed(2), centre: this.centre.map((place) => place.toFixed(3)).join(" "),
      panels: panels.map((p) => [p.x, p.y, p.width, p.height].map(Math.round).join(",")).join(" "),
      images: panels.map((p) => Object.values(this.frame(p, scale)).map(Math.round).join(",")).join(" "),
    });
  }

  drawPanel(panel, scale) {
    const { context } = this, frame = this.frame(panel, scale), lies = LAYOUT[panel.plane];
    context.save();
    context.beginPath();
    context.rect(panel.x, panel.y, panel.width, panel.height);
    context.clip();
    context.fillStyle = "#0a0d10";
    context.fillRect(panel.x, panel.y, panel.width, panel.height);
    const perPoint = frame.width * (window.devicePixelRatio || 1) / this.pair.shape[lies.across];
    context.imageSmoothingEnabled = perPoint < 8; // beyond that the points themselves are looked at
    context.imageSmoothingQuality = "high";
    const place = [frame.x, frame.y, frame.width, frame.height];
    if (panel.image !== "both") {
      context.drawImage(this.picture(panel.image, panel.plane), ...place);
    } else if (this.mode === "difference") {
      context.drawImage(this.picture("difference", panel.plane), ...place);
    } else {
      context.drawImage(this.picture("synthetic", panel.plane), ...place);
      context.globalAlpha = this.opacity;
      context.drawImage(this.picture("training", panel.plane), ...place);
      context.globalAlpha = 1;
    }
    if (this.dims === 3) this.drawLines(panel, frame);
    this.drawWords(panel);
    context.restore();
  }

  drawLines(panel, frame) {
    const { context } = this, lies = LAYOUT[panel.plane], { shape } = this.pair;
    if (this.lines) {
      const share = (axis, turn) => {
        const found = (this.cross[axis] + 0.5) / shape[axis];
        return turn ? 1 - found : found;
      };
      const x = Math.round(frame.x + share(lies.across, lies.turnAcross) * frame.width) + 0.5;
      const y = Math.round(frame.y + share(lies.down, lies.turnDown) * frame.height) + 0.5;
      const free = 9; // nothing is drawn over the place itself
      context.strokeStyle = "rgba(255, 209, 102, .65)";
      context.lineWidth = 1;
      context.beginPath();
      for (const [from, to] of [[panel.x, x - free], [x + free, panel.x + panel.width]]) {
        context.moveTo(from, y);
        context.lineTo(Math.max(from, to), y);
      }
      for (const [from, to] of [[panel.y, y - free], [y + free, panel.y + panel.height]]) {
        context.moveTo(x, from);
        context.lineTo(x, Math.max(from, to));
      }
      context.stroke();
    }
    if (panel.plane === this.active && this.planes.length > 1) {
      context.strokeStyle = "#2f81c1";
      context.lineWidth = 2;
      context.strokeRect(panel.x + 1, panel.y + 1, panel.width - 2, panel.height - 2);
    }
  }

  drawWords(panel) {
    const { context } = this, lies = LAYOUT[panel.plane];
    const both = this.mode === "difference" ? "difference" : `training over synthetic ${Math.round(100 * this.opacity)} %`;
    const words = [{ ...NAMES, both }[panel.image]];
    if (lies.fixed !== null) words.push(`${panel.plane} ${this.cross[lies.fixed] + 1} of ${this.pair.shape[lies.fixed]}`);
    context.font = "13px system-ui, 'DejaVu Sans', sans-serif";
    const small = panel.width < 340; // a phone
    (small ? words : [words.join(", ")]).forEach((text, i) => this.word(text, panel.x + 8, panel.y + 8 + 17 * i, "left", "top"));
    if (!this.pair.oriented) return;
    const [top, bottom, left, right] = lies.ends;
    const middle = [panel.x + panel.width / 2, panel.y + panel.height / 2];
    if (!small) this.word(top, middle[0], panel.y + 8, "center", "top");
    this.word(bottom, middle[0], panel.y + panel.height - 8, "center", "bottom");
    this.word(left, panel.x + 8, middle[1], "left", "middle");
    this.word(right, panel.x + panel.width - 8, middle[1], "right", "middle");
  }

  word(text, x, y, align, baseline) {
    const { context } = this;
    Object.assign(context, { textAlign: align, textBaseline: baseline, lineWidth: 3, strokeStyle: "#000", fillStyle: "#e8ecf1", lineJoin: "round" });
    context.strokeText(text, x, y);
    context.fillText(text, x, y);
  }
}
