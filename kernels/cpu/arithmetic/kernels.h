// The arithmetic of the native CPU runner, one table of functions for each instruction set. Plain interfaces: no standard
// library type crosses them, so that nothing compiled for one instruction set can be taken for another.
//
// A map is height x width x channels values, channels innermost, inside a ring of zeros: pixel (y, x) starts at
// ((y + 1) * pitch + x + 1) * channels. Channels are padded to a multiple of Kernels::block; all pointers are aligned to
// 64 bytes. Pitch and rows have room for whole 4x4 tiles; what lies outside the image is zero and stays so. Values are float32,
// or int8 where `bytes` is set: then the weights around the map are such that its values are of steps of 1 (export/emit/native.py),
// and all that the kernels do is to round them, within -127 to 127. Arithmetic is float32 throughout.
#pragma once

namespace universeg {

struct Shape {
  int height, width, channels, pitch;  // pitch: pixels in a padded row
  bool bytes;
};

// A 3x3 convolution by Winograd's F(4x4,3x3): weights transformed to 36 products of (inputs x outputs) each, packed as
// [36][outputs / block][inputs][block].
struct Winograd {
  const float* weights;
  int inputs, outputs;
};

// A share of a convolution: a row of tiles (output rows 4 * row to 4 * row + 3), the output channels from..to-1, whole blocks, of the
// entries first..last-1.
struct Share {
  int row, from, to, first, last;
};

// Tiles that go through the inner products together: more of them use each weight more often, fewer stay in the cache.
constexpr int TOGETHER = 16;

// Where a convolution reads: for entry e the map at data + e * stride; sources are concatenated in order.
struct Source {
  const void* data;
  long stride;
  int channels, pitch;
  bool bytes;
};

// What becomes of a convolution's sums x[entry]: add (a map shared by all entries) and bias (a value a channel) are added,
// then LeakyReLU where activate is set; the result goes to out, its weighted sum over entries to mean, its 2x2 maximum to
// pooled and the weighted sum of that to pooled_mean. What is null is left out.
struct Epilogue {
  const float* add;
  const float* bias;
  int activate;
  float slope;
  void* out;
  long out_stride;
  bool out_bytes;
  void* pooled;
  long pooled_stride;
  int pooled_pitch;
  bool pooled_bytes;
  float* mean;
  float* pooled_mean;
  const float* entry_weights;
  int first;  // the first entry starts the sums instead of adding to them
};

// The first block's 5x5 convolution of image and label: weights [9][2][25][outputs], the kernel of each of the nine
// positions a pixel can have (top, middle, bottom) x (left, middle, right); label_sum [outputs], the sum of the label's 25
// weights in the middle.
struct FirstBlock {
  const float* weights;
  const float* label_sum;
  int outputs;
};

// The entries of a support, planar (2, height, width); and for each 2x2 square that is not on the border what the label is in
// the 6x6 window that its convolution reads: 0 or 1 all over, or MIXED.
struct Images {
  const float* data;
  long stride;
  const unsigned char* labels;
  long labels_stride;
};
enum { MIXED = 2 };

// What the convolution gives for the first `count` of these images, which no query changes: (count, height / 2, width / 2,
// outputs / BLOCK, 4, BLOCK). known: it stands there; else it is written.
struct FirstTerms {
  float* data;
  int count;
  bool known;
};

// A row of 4x4 tiles for the gradient of a convolution's weights: its input inside a ring as above, from the ring's first pixel on;
// its outputs' gradient, dense, and how many of its rows are image.
struct GradientRow {
  const float *input, *gradient;
  int rows;
};

// Two rows of the first block in training: its 5x5 convolution of `entries` images, planar in a border of two zeros
// (2, height + 4, width + 4), LeakyReLU, weighted mean over the entries and 2x2 maximum. weights [9][2][25][outputs] as in
// FirstBlock; add: what all entries receive, these two rows of a dense map. Other maps are dense too, their rows of this pair.
struct FirstPair {
  const float *weights, *images, *add, *entry_weights;
  int entries, height, width, outputs, pair;
  float slope;
  long pooled_stride;  // floats between two entries' pooled maps
};

struct Kernels {
  const char* name;
  int block;  // channels come in multiples of this

  // Computes a share of a convolution. scratch has scratch_floats(inputs, outputs) floats.
  void (*winograd_row)(const Winograd&, const Source*, int sources, const Shape&, const Share&, const Epilogue&, float* scratch);
  long (*scratch_floats)(int inputs, int outputs);

  // Adds to sums [36][inputs][outputs] what rows of tiles give to the gradient of the transformed weights; shape: of the outputs'
  // gradient, pitch its pixels in a row. scratch has gradient_scratch_floats(inputs, outputs) floats.
  void (*gradient_rows)(const GradientRow*, int count, int inputs, int source_pitch, const Shape&, float* sums, float* scratch);
  long (*gradient_scratch_floats)(int inputs, int outputs);

  // Forward; and backward from the gradients of both results to add's (written) and the weights' (added to sums [9][2][25][outputs]).
  // scratch has 2 * width * block floats.
  void (*first_forward)(const FirstPair&, float* pooled, float* mean, float* scratch);
  void (*first_backward)(const FirstPair&, const float* pooled, const float* mean, float* add_gradient, float* sums, float* scratch);

  // Rows 2 * pair and 2 * pair + 1 of the first block's support term of `entries` images, added to epilogue.add and so on.
  void (*first_block_rows)(const FirstBlock&, const Images&, const FirstTerms&, const Shape&, int pair, int entries, const Epilogue&);

  // A 3x3 convolution of few planar inputs (inputs, height + 2, width + 2) to a map, row y; weights [inputs][9][outputs].
  void (*small_row)(const float* weights, const float* planar, int inputs, const Shape&, int y, const float* bias, float* out);

  // Row y of a map twice the size of `in` and of its type by bilinear interpolation with aligned corners.
  void (*upsample_row)(const void* in, const Shape& in_shape, int y, void* out, const Shape& out_shape);

  // Row y of the 2x2 maximum of `in`, of its type.
  void (*pool_row)(const void* in, const Shape& in_shape, int y, void* out, const Shape& out_shape);

  // Row y of the 1x1 convolution to one value a pixel, written densely.
  void (*head_row)(const float* weights, float bias, const float* in, const Shape&, int y, float* out);
};

const Kernels* plain_kernels();
const Kernels* avx2_kernels();    // x86-64 only
const Kernels* avx512_kernels();  // x86-64 only

}  // namespace universeg
