// Copyright (c) monai_memo contributors
// SPDX-License-Identifier: Apache-2.0
// From grey values to pictures: planes of a volume, windows, colours of a difference, and where panels go.
// No page is needed here: arrays and numbers only.

// How each plane lies on the screen: axes of the array, and whether they run against it. Radiological display: the
// patient's right is on the left. Ends: letters at top, bottom, left and right.
export const LAYOUT = {
  picture: { fixed: null, across: 1, down: 0, turnAcross: false, turnDown: false, ends: ["", "", "", ""] },
  axial: { fixed: 2, across: 0, down: 1, turnAcross: true, turnDown: true, ends: ["A", "P", "R", "L"] },
  coronal: { fixed: 1, across: 0, down: 2, turnAcross: true, turnDown: true, ends: ["S", "I", "R", "L"] },
  sagittal: { fixed: 0, across: 1, down: 2, turnAcross: false, turnDown: true, ends: ["S", "I", "P", "A"] },
};
export const PLANES = ["axial", "coronal", "sagittal"];

// The grey values of one plane, row by row as they lie on the screen.
export function slice(values, shape, plane, index) {
  const lies = LAYOUT[plane];
  if (lies.fixed === null) return { values, rows: shape[0], columns: shape[1] }; // lies as it is stored
  const strides = shape.map((_, axis) => shape.slice(axis + 1).reduce((product, length) => product * length, 1));
  const columns = shape[lies.across], rows = shape[lies.down];
  const step = lies.turnAcross ? -strides[lies.across] : strides[lies.across];
  const first = index * strides[lies.fixed] +
    (lies.turnAcross ? (columns - 1) * strides[lies.across] : 0);
  const found = new Uint16Array(rows * columns);
  for (let row = 0, to = 0; row < rows; row++) {
    let from = first + (lies.turnDown ? rows - 1 - row : row) * strides[lies.down];
    for (let column = 0; column < columns; column++, from += step) found[to++] = values[from];
  }
  return { values: found, rows, columns };
}

// From 0 (black) to 255 (white) for every stored value. Low and high are in units of the image: 0 and 1 are the
// percentiles of the audit's preprocessing.
export function shades(grey, low, high) {
  const table = new Uint8ClampedArray(grey.most + 1);
  const width = Math.max(high - low, 1e-6);
  for (let stored = 0; stored <= grey.most; stored++) {
    table[stored] = 255 * (stored / grey.levels + grey.lowest - low) / width;
  }
  return table;
}

// Colour of a difference of two shades, -255 to 255: purple where the synthetic image is darker, orange where it is
// brighter. Anchors: PuOr of ColorBrewer, as in the report.
const ANCHORS = [[45, 0, 75], [84, 39, 136], [128, 115, 172], [178, 171, 210], [216, 218, 235], [247, 247, 247],
                 [254, 224, 182], [253, 184, 99], [224, 130, 20], [179, 88, 6], [127, 59, 8]];
const DIFFERENCES = Uint32Array.from({ length: 511 }, (_, position) => {
  const place = position / 510 * (ANCHORS.length - 1);
  const before = Math.min(Math.floor(place), ANCHORS.length - 2);
  const mixed = ANCHORS[before].map((value, i) => Math.round(value + (ANCHORS[before + 1][i] - value) * (place - before)));
  return (255 << 24 | mixed[2] << 16 | mixed[1] << 8 | mixed[0]) >>> 0;
});

// Fill the pixels of a canvas (as 32 bit numbers). Values: grey, or all of red, then of green, then of blue.
export function paint(pixels, values, table) {
  const n = pixels.length, step = values.length > n ? n : 0;
  for (let i = 0; i < n; i++) {
    pixels[i] = (255 << 24 | table[values[i + 2 * step]] << 16 | table[values[i + step]] << 8 | table[values[i]]) >>> 0;
  }
}

// In colour the difference of the channel that differs most: equal grey values can hide another colour.
export function paintDifference(pixels, synthetic, training, table) {
  for (let i = 0; i < pixels.length; i++) {
    let most = 0;
    for (let at = i; at < synthetic.length; at += pixels.length) {
      const difference = table[synthetic[at]] - table[training[at]];
      if (Math.abs(difference) > Math.abs(most)) most = difference;
    }
    pixels[i] = DIFFERENCES[most + 255];
  }
}

// Where panels go: the number of columns at which images come out largest.
// Sizes: [across, down] of each panel's image. Choices: numbers of columns to try.
export function arranged(sizes, width, height, choices, gap) {
  let best = null;
  for (const columns of choices) {
    const rows = Math.ceil(sizes.length / columns);
    const cell = [(width - gap * (columns - 1)) / columns, (height - gap * (rows - 1)) / rows];
    const scale = Math.min(...sizes.map(([across, down]) => Math.min(cell[0] / across, cell[1] / down)));
    if (!best || scale > best.scale * 1.001) best = { columns, rows, cell, scale };
  }
  best.places = sizes.map((_, i) => {
    const column = i % best.columns, row = Math.floor(i / best.columns);
    return { x: column * (best.cell[0] + gap), y: row * (best.cell[1] + gap), width: best.cell[0], height: best.cell[1] };
  });
  return best;
}
