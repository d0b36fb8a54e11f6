// Segments one image by a frozen task, a file that `universeg-export --freeze` wrote.
//
//     npm install onnxruntime-node    (in a browser: onnxruntime-web, whose calls are the same)
//     node segment.mjs TASK.onnx IMAGE.pgm MASK.pgm
//
// IMAGE.pgm is a binary PGM (P5, 8 bits) of the size that the network reads. The mask is 255 where the probability is at
// least the file's threshold.
import { readFileSync, writeFileSync } from 'node:fs';
import ort from 'onnxruntime-node';

function readPgm(path) {
  const bytes = readFileSync(path);
  const header = /^P5(?:\s|#.*\n)+(\d+)(?:\s|#.*\n)+(\d+)(?:\s|#.*\n)+(\d+)\s/.exec(bytes.toString('latin1'));
  if (!header || Number(header[3]) > 255) throw new Error(`${path} is no binary PGM (P5) of 8 bits`);
  const [width, height] = [Number(header[1]), Number(header[2])];
  const pixels = bytes.subarray(header[0].length, header[0].length + width * height);
  if (pixels.length < width * height) throw new Error(`${path} is cut off`);
  return { width, height, pixels };
}

/** Pixels to [0, 1] by the image's own range. */
function minMax(pixels) {
  const low = pixels.reduce((a, b) => Math.min(a, b)), high = pixels.reduce((a, b) => Math.max(a, b));
  if (low === high) throw new Error('the image is constant');
  return Float32Array.from(pixels, (value) => (value - low) / (high - low));
}

async function main([task, image, mask]) {
  if (!mask) throw new Error('usage: node segment.mjs TASK.onnx IMAGE.pgm MASK.pgm');
  // ONNX Runtime gives JavaScript no metadata of a model; their text stands in the file as it is.
  const bytes = readFileSync(task);
  if (!bytes.includes('universeg.frozen')) throw new Error(`${task} is no frozen task`);
  if (bytes.includes('universeg.image')) throw new Error('the file prepares images itself; run it on the image as it is');
  if (!bytes.includes('"normalise": "minmax"')) throw new Error('the file asks for another normalisation than min-max');
  const threshold = Number(/"threshold": ([0-9.e-]+)/.exec(bytes.toString('latin1'))?.[1]);
  if (!threshold) throw new Error('the file does not say from which probability on to mark');
  const session = await ort.InferenceSession.create(bytes);
  const [, , rows, columns] = session.inputMetadata[0].shape;
  const { width, height, pixels } = readPgm(image);
  if (height !== rows || width !== columns)
    throw new Error(`the image is ${height}x${width} pixels; the network reads ${rows}x${columns}: resize it first`);
  const query = new ort.Tensor('float32', minMax(pixels), [1, 1, height, width]);
  const { probability } = await session.run({ query }, ['probability']);
  const found = Uint8Array.from(probability.data, (p) => (p >= Math.fround(threshold) ? 255 : 0));
  writeFileSync(mask, Buffer.concat([Buffer.from(`P5\n${width} ${height}\n255\n`), found]));
}

main(process.argv.slice(2)).catch((error) => {
  console.error(`segment: ${error.message}`);
  process.exitCode = 1;
});
