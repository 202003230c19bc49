// Renders the avatars that come with began, pixel for pixel: cartoon heads, 64 x 64, in colour.
//
//     mkdir render && cd render && cp ../scripts/render_avatars.mjs .
//     npm install @dicebear/core@10.7.0 @dicebear/styles@10.6.0 @resvg/resvg-js@2.6.2
//     node render_avatars.mjs 20000 0 train && node render_avatars.mjs 5000 20000 test
//     xz -9e *.npy
//
// The arguments are how many, the number of the first, and the name of the files. Image i is drawn
// from the seed `began-i`. Writes NAME.npy, uint8 (N, 64, 64, 3), and NAME-attributes.npy, uint8
// (N, 11): for each attribute the number of its value in the lists below, which are those of
// ATTRIBUTES in began_cli/evaluation/avatars_classifier.py in DiceBear's words.

import fs from 'node:fs';
import { Avatar, Style } from '@dicebear/core';
import { Resvg } from '@resvg/resvg-js';

const SIDE = 64;
const STYLE = 'node_modules/@dicebear/styles/dist/toon-head.min.json';
const BACKGROUNDS = ['#b6e3f4', '#c0aede', '#d1d4f9', '#ffd5dc', '#ffdfbf'];
// The style's name of an attribute, and its values; '' is an attribute that is not drawn.
const ATTRIBUTES = {
  backgroundColor: BACKGROUNDS,
  skinColor: ['#5c3829', '#a36b4f', '#b98e6a', '#c68e7a', '#f1c3a5'],
  hairColor: ['#2c1b18', '#724133', '#a55728', '#b58143', '#d6b370'],
  hairVariant: ['bun', 'sideComed', 'spiky', 'undercut'],
  rearHairVariant: ['', 'longStraight', 'longWavy', 'neckHigh', 'shoulderHigh'],
  beardVariant: ['', 'chin', 'chinMoustache', 'fullBeard', 'longBeard', 'moustacheTwirl'],
  eyesVariant: ['bow', 'happy', 'humble', 'wide', 'wink'],
  eyebrowsVariant: ['angry', 'happy', 'neutral', 'raised', 'sad'],
  mouthVariant: ['agape', 'angry', 'laugh', 'sad', 'smile'],
  clothesVariant: ['dress', 'openJacket', 'shirt', 'tShirt', 'turtleNeck'],
  clothesColor: [
    '#0b3286', '#147f3c', '#151613', '#545454', '#731ac3',
    '#b11f1f', '#e8e9e6', '#eab308', '#ec4899', '#f97316',
  ],
};

/** Return the pixels of an avatar, RGB, row by row. */
function render(avatar) {
  const options = {
    fitTo: { mode: 'width', value: SIDE },
    background: '#ffffff',
    font: { loadSystemFonts: false },
  };
  const rgba = new Resvg(avatar.toString(), options).render().pixels;
  return rgba.filter((_, i) => i % 4 !== 3);
}

/** Return the numbers of the values that an avatar was drawn from. */
function readAttributes(avatar) {
  const drawn = avatar.toJSON().options;
  return Object.entries(ATTRIBUTES).map(([name, values]) => {
    const number = values.indexOf([drawn[name]].flat()[0] ?? '');
    if (number < 0) throw new Error(`${name}: ${drawn[name]} is not in the list`);
    return number;
  });
}

/** Open a file of NumPy's format 1.0 for a uint8 array of this shape; the values are to follow. */
function openNpy(path, shape) {
  const start = `{'descr': '|u1', 'fortran_order': False, 'shape': (${shape.join(', ')}), }`;
  const length = Math.ceil((10 + start.length + 1) / 64) * 64 - 10; // NumPy aligns it to 64 bytes
  const header = Buffer.from(`\x93NUMPY\x01\x00..${start.padEnd(length - 1)}\n`, 'latin1');
  header.writeUInt16LE(length, 8);
  const file = fs.openSync(path, 'w');
  fs.writeSync(file, header);
  return file;
}

const [count, first] = process.argv.slice(2, 4).map(Number);
const name = process.argv[4];
if (!(count > 0 && first >= 0 && name)) {
  console.error('usage: node render_avatars.mjs COUNT FIRST NAME');
  process.exit(2);
}
const style = new Style(JSON.parse(fs.readFileSync(STYLE)));
const images = openNpy(`${name}.npy`, [count, SIDE, SIDE, 3]);
const attributes = openNpy(
  `${name}-attributes.npy`, [count, Object.keys(ATTRIBUTES).length],
);
for (let i = first; i < first + count; i++) {
  const avatar = new Avatar(style, { seed: `began-${i}`, backgroundColor: BACKGROUNDS });
  fs.writeSync(images, render(avatar));
  fs.writeSync(attributes, Uint8Array.from(readAttributes(avatar)));
}
