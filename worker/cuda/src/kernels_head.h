// Kernels of a network's head, in three steps: means of features, logits, and the maps of the top
// class and of the label. A part of kernels.cu.
//
// The steps are kernels of their own because they divide the work differently: a block that did all
// of one image would read all weights of the head for it, 8 MB with 1,000 classes.
#pragma once

#include "kernels_common.h"

// Features `[N, P, C]` to their means over positions, `[N, C]`. Blocks: images × (groups / 256,
// rounded up).
template <typename T>
DEVICE void head_pool(const T *features, float *pooled, int positions, int channels) {
  Groups<T> groups(channels, features, pooled);
  BlockPlace place = block_place(blocks_for(groups.count, THREADS));
  FOR_EACH_THREAD(thread) {
    int group = place.block * THREADS + thread;
    if (group >= groups.count) continue;
    const T *image = features + static_cast<size_t>(place.image) * positions * channels;
    float sums[Group<T>::SIZE] = {};
#ifndef CAMSHAFT_ON_HOST
#pragma unroll 8
#endif
    for (int position = 0; position < positions; position++) {
      float values[Group<T>::SIZE];
      groups.load(image + static_cast<size_t>(position) * channels, group, values);
      UNROLL for (int k = 0; k < Group<T>::SIZE; k++) sums[k] += values[k];
    }
    UNROLL for (int k = 0; k < Group<T>::SIZE; k++) sums[k] /= positions;
    groups.store(pooled + static_cast<size_t>(place.image) * channels, group, sums);
  }
}
KERNEL(head_pool, (const T *features, float *pooled, int positions, int channels),
       (features, pooled, positions, channels))

// Images and classes of one block of `head_logits`, and all sums of it.
const int LOGIT_IMAGES = 4;
const int LOGIT_CLASSES = 8;
const int LOGITS_OF_BLOCK = LOGIT_IMAGES * LOGIT_CLASSES;
// Threads that add up what all threads have of one logit.
const int LOGIT_ADDERS = THREADS / LOGITS_OF_BLOCK;
// From one logit's partial sums to the next ones', so that threads read from different banks.
const int LOGIT_STRIDE = THREADS + LOGIT_ADDERS;

// The products of one input of the linear layer with the weights of the block's classes.
DEVICE void add_products(const float *inputs, const float *const *weights, size_t index,
                         float *sums) {
  UNROLL for (int k = 0; k < LOGIT_CLASSES; k++) {
    float weight = weights[k][index];
    UNROLL for (int i = 0; i < LOGIT_IMAGES; i++) {
      sums[i * LOGIT_CLASSES + k] += inputs[i] * weight;
    }
  }
}

// Logits `[N, K]`: of the means `[N, C]` with weights `[K, C]`, or, if `flatten`, of the features
// `[N, P, C]` with weights `[K, C * P]`. Blocks: (images / 4, rounded up) × (classes / 8, rounded
// up). A thread takes every 256th channel for all of the block's images and classes, so that a
// weight is read once for 4 images.
template <typename T>
DEVICE void head_logits(const T *features, const float *pooled, const float *weight,
                        const float *bias, float *logits, int flatten, int images, int positions,
                        int channels, int classes) {
  SHARED float partial[LOGITS_OF_BLOCK * LOGIT_STRIDE];
  BlockPlace place = block_place(blocks_for(classes, LOGIT_CLASSES));
  int first_image = place.image * LOGIT_IMAGES, first_class = place.block * LOGIT_CLASSES;
  FOR_EACH_THREAD(thread) {
    float sums[LOGITS_OF_BLOCK] = {};
    size_t depth = static_cast<size_t>(channels) * (flatten ? positions : 1);
    // What lies past the last image or class is computed of the last one, and not stored.
    size_t image_of[LOGIT_IMAGES];
    const float *weights[LOGIT_CLASSES];
    UNROLL for (int i = 0; i < LOGIT_IMAGES; i++) {
      image_of[i] = smaller(first_image + i, images - 1);
    }
    UNROLL for (int k = 0; k < LOGIT_CLASSES; k++) {
      weights[k] = weight + smaller(first_class + k, classes - 1) * depth;
    }
    for (int channel = thread; channel < channels; channel += THREADS) {
      float inputs[LOGIT_IMAGES];
      if (!flatten) {
        UNROLL for (int i = 0; i < LOGIT_IMAGES; i++) {
          inputs[i] = pooled[image_of[i] * channels + channel];
        }
        add_products(inputs, weights, channel, sums);
        continue;
      }
      for (int position = 0; position < positions; position++) {
        UNROLL for (int i = 0; i < LOGIT_IMAGES; i++) {
          size_t pixel = image_of[i] * positions + position;
          inputs[i] = to_float(features[pixel * channels + channel]);
        }
        size_t index = static_cast<size_t>(channel) * positions + position;
        add_products(inputs, weights, index, sums);
      }
    }
    UNROLL for (int o = 0; o < LOGITS_OF_BLOCK; o++) partial[o * LOGIT_STRIDE + thread] = sums[o];
  }
  WAIT_FOR_THREADS();
  FOR_EACH_THREAD(thread) {
    // Only this thread reads these sums, so it may write over the first of them.
    float *own = partial + thread / LOGIT_ADDERS * LOGIT_STRIDE + thread % LOGIT_ADDERS;
    float sum = 0.f;
    for (int i = 0; i < THREADS; i += LOGIT_ADDERS) sum += own[i];
    own[0] = sum;
  }
  WAIT_FOR_THREADS();
  FOR_EACH_THREAD(thread) {
    int image = first_image + thread / LOGIT_CLASSES, k = first_class + thread % LOGIT_CLASSES;
    if (thread >= LOGITS_OF_BLOCK || image >= images || k >= classes) continue;
    float sum = 0.f;
    for (int i = 0; i < LOGIT_ADDERS; i++) sum += partial[thread * LOGIT_STRIDE + i];
    logits[static_cast<size_t>(image) * classes + k] = sum + bias[k];
  }
}
KERNEL(head_logits,
       (const T *features, const float *pooled, const float *weight, const float *bias,
        float *logits, int flatten, int images, int positions, int channels, int classes),
       (features, pooled, weight, bias, logits, flatten, images, positions, channels, classes))

// A class and its logit; -1 if there is none yet.
struct BestClass {
  float logit;
  int index;
};

// The first of the largest. NaN is never better than anything, not even than none.
DEVICE bool is_better(BestClass a, BestClass b) {
  if (a.index < 0 || a.logit != a.logit) return false;
  if (b.index < 0) return true;
  return a.logit > b.logit || (a.logit == b.logit && a.index < b.index);
}

// Positions that one thread of `head_maps` computes, and that a block does. A warp's 32 threads
// divide the channels of its positions.
const int MAP_POSITIONS_OF_THREAD = 8;
const int MAP_LANES = 32;
const int MAP_POSITIONS = THREADS / MAP_LANES * MAP_POSITIONS_OF_THREAD;
// One more than the lanes, so that threads read from different banks.
const int MAP_STRIDE = MAP_LANES + 1;

// What one thread has of both maps at its positions, to `partial`.
template <typename T>
DEVICE void partial_maps(const T *features, const float *const *weights, float *partial,
                         int first_position, int positions, const Groups<T> &groups, int thread) {
  int lane = thread % MAP_LANES, row = thread / MAP_LANES;
  float sums[2][MAP_POSITIONS_OF_THREAD] = {};
  for (int group = lane; group < groups.count; group += MAP_LANES) {
    float top[Group<T>::SIZE], label[Group<T>::SIZE];
    groups.load(weights[0], group, top);
    groups.load(weights[1], group, label);
    UNROLL for (int j = 0; j < MAP_POSITIONS_OF_THREAD; j++) {
      int position = first_position + j * (THREADS / MAP_LANES) + row;
      // What lies past the last position is computed of the last one, and not stored.
      size_t pixel = smaller(position, positions - 1);
      float values[Group<T>::SIZE];
      groups.load(features + pixel * groups.channels, group, values);
      UNROLL for (int k = 0; k < Group<T>::SIZE; k++) {
        sums[0][j] += top[k] * values[k];
        sums[1][j] += label[k] * values[k];
      }
    }
  }
  UNROLL for (int map = 0; map < 2; map++) {
    UNROLL for (int j = 0; j < MAP_POSITIONS_OF_THREAD; j++) {
      int of_block = map * MAP_POSITIONS + j * (THREADS / MAP_LANES) + row;
      partial[of_block * MAP_STRIDE + lane] = sums[map][j];
    }
  }
}

// The top class of each image, `[N]`, and maps `[N, 2, P]`: of the top class, then of the label, or
// zeros if the label is no class. Blocks: images × (positions / 64, rounded up). Each block finds
// the top class for itself.
template <typename T>
DEVICE void head_maps(const T *features, const float *cam_weight, const float *logits,
                      const int *labels, float *maps, int *tops, int positions, int channels,
                      int classes) {
  SHARED BestClass best[THREADS];
  SHARED int targets[2];
  SHARED float partial[2 * MAP_POSITIONS * MAP_STRIDE];
  BlockPlace place = block_place(blocks_for(positions, MAP_POSITIONS));
  int first_position = place.block * MAP_POSITIONS;
  FOR_EACH_THREAD(thread) {
    BestClass own = {0.f, -1};
    for (int k = thread; k < classes; k += THREADS) {
      BestClass other = {logits[static_cast<size_t>(place.image) * classes + k], k};
      if (is_better(other, own)) own = other;
    }
    best[thread] = own;
  }
  WAIT_FOR_THREADS();
  for (int half = THREADS / 2; half > 0; half /= 2) {
    FOR_EACH_THREAD(thread) {
      if (thread < half && is_better(best[thread + half], best[thread])) {
        best[thread] = best[thread + half];
      }
    }
    WAIT_FOR_THREADS();
  }
  FOR_EACH_THREAD(thread) {
    if (thread > 0) continue;
    // If all logits are NaN, some class has to be named.
    targets[0] = best[0].index < 0 ? 0 : best[0].index;
    targets[1] = labels[place.image];
    if (place.block == 0) tops[place.image] = targets[0];
  }
  WAIT_FOR_THREADS();
  bool has_label = targets[1] >= 0 && targets[1] < classes;
  FOR_EACH_THREAD(thread) {
    const float *weights[2] = {
        cam_weight + static_cast<size_t>(targets[0]) * channels,
        cam_weight + static_cast<size_t>(has_label ? targets[1] : targets[0]) * channels};
    const T *image = features + static_cast<size_t>(place.image) * positions * channels;
    Groups<T> groups(channels, features, cam_weight);
    partial_maps<T>(image, weights, partial, first_position, positions, groups, thread);
  }
  WAIT_FOR_THREADS();
  FOR_EACH_THREAD(thread) {
    int map = thread / MAP_POSITIONS, position = first_position + thread % MAP_POSITIONS;
    if (map > 1 || position >= positions) continue;
    float sum = 0.f;
    for (int lane = 0; lane < MAP_LANES; lane++) sum += partial[thread * MAP_STRIDE + lane];
    bool is_known = map == 0 || has_label;
    size_t index = (static_cast<size_t>(place.image) * 2 + map) * positions + position;
    maps[index] = is_known ? rectified(sum) : 0.f;
  }
}
KERNEL(head_maps,
       (const T *features, const float *cam_weight, const float *logits, const int *labels,
        float *maps, int *tops, int positions, int channels, int classes),
       (features, cam_weight, logits, labels, maps, tops, positions, channels, classes))

// The gradient of a logit with respect to the features, times `scale`: `[R, P, C]` for the classes
// `[R]`. It is the class's weight / P, or, if `flatten`, its own weight for each feature. Blocks:
// rows × (groups of a row / 256, rounded up).
template <typename T>
DEVICE void head_gradient(const int *classes, const float *weight, T *output, int flatten,
                          float scale, int positions, int channels) {
  Groups<T> groups(channels, output);
  int items = positions * groups.count;
  BlockPlace place = block_place(blocks_for(items, THREADS));
  FOR_EACH_THREAD(thread) {
    int item = place.block * THREADS + thread;
    if (item >= items) continue;
    int group = item % groups.count, position = item / groups.count;
    size_t depth = static_cast<size_t>(channels) * (flatten ? positions : 1);
    const float *of_class = weight + classes[place.image] * depth;
    float values[Group<T>::SIZE] = {};
    UNROLL for (int k = 0; k < Group<T>::SIZE; k++) {
      if (k >= groups.size(group)) continue;
      size_t channel = groups.first(group) + k;
      values[k] = flatten ? of_class[channel * positions + position] * scale
                          : of_class[channel] / positions * scale;
    }
    size_t pixel = static_cast<size_t>(place.image) * positions + position;
    groups.store(output + pixel * channels, group, values);
  }
}
KERNEL(head_gradient,
       (const int *classes, const float *weight, T *output, int flatten, float scale,
        int positions, int channels),
       (classes, weight, output, flatten, scale, positions, channels))
