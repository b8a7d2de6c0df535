// The waveform and the spectrogram of a loop.
import { bytes } from "./api.js";

const COLOURS = [[11, 13, 16], [20, 45, 56], [30, 110, 110], [150, 200, 80], [240, 250, 190]];
const palette = Uint32Array.from({ length: 256 }, (_, level) => { // as a pixel lies in memory: alpha, blue, green, red
  const at = (level / 255) * (COLOURS.length - 1), low = Math.min(Math.floor(at), COLOURS.length - 2);
  const [red, green, blue] = COLOURS[low].map((value, i) => Math.round(value + (COLOURS[low + 1][i] - value) * (at - low)));
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
});

export function drawWave(canvas, data) {
  canvas.width = 800; canvas.height = 120;
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#b8e04a";
  for (let x = 0; x < canvas.width; x++) {
    let low = 1, high = -1;
    const begin = Math.floor((x * data.length) / canvas.width);
    const end = Math.max(Math.floor(((x + 1) * data.length) / canvas.width), begin + 1);
    for (let i = begin; i < end; i++) { low = Math.min(low, data[i]); high = Math.max(high, data[i]); }
    pen.fillRect(x, 60 - 58 * high, 1, Math.max(58 * (high - low), 1));
  }
}

export function drawSpectrum(canvas, picture, frames) {
  const levels = bytes(picture), bands = levels.length / frames;
  canvas.width = frames; canvas.height = bands;
  const image = new ImageData(frames, bands), points = new Uint32Array(image.data.buffer);
  for (let i = 0; i < levels.length; i++) { // the lowest band comes first and is drawn last
    points[(bands - 1 - Math.floor(i / frames)) * frames + (i % frames)] = palette[levels[i]];
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}
