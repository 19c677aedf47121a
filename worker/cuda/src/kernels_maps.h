// Kernels of the gradient methods: from activations and gradients `[R, P, C]` to the weights of
// channels and to maps. A part of kernels.cu. The formulas are those of worker/model/src/cam, which
// names their papers.
//
// Gradients that come in were multiplied by a scale, which keeps them within the format's range;
// `inverse_scale` takes that back.
#pragma once

#include "kernels_common.h"

// Numbers of the rules, as kernels.rs counts them.
const int GRAD_CAM = 0;
const int GRAD_CAM_PLUS_PLUS = 1;
const int X_GRAD_CAM = 2;
const int HI_RES_CAM = 0;
const int LAYER_CAM = 1;

// Prevents a division by zero in Grad-CAM++ if a gradient is zero: pytorch-grad-cam's value.
const float GRAD_CAM_PLUS_PLUS_EPSILON = 1e-6f;
// Prevents a division by zero in XGrad-CAM if a channel is zero: the value of the authors' code.
const float X_GRAD_CAM_EPSILON = 1e-7f;

// Groups of channels of one block of `channel_weights`: neighbouring threads read 64 bytes at once.
const int WEIGHT_GROUPS = 4;
// Threads that share the positions of one group.
const int WEIGHT_ADDERS = THREADS / WEIGHT_GROUPS;

// The sum of what the threads of a group have in `partial` for channel `thread` of the block. Each
// thread has a whole group of sums.
template <typename T>
DEVICE float sum_of_adders(const float *partial, int thread) {
  int column = thread / Group<T>::SIZE, k = thread % Group<T>::SIZE;
  float sum = 0.f;
  for (int adder = 0; adder < WEIGHT_ADDERS; adder++) {
    sum += partial[(adder * WEIGHT_GROUPS + column) * Group<T>::SIZE + k];
  }
  return sum;
}

// The part of one gradient in its channel's weight by Grad-CAM++ (equation 19 of the paper), where
// `sum` is the sum of the channel's activations.
DEVICE float grad_cam_plus_plus_part(float gradient, float sum) {
  float square = gradient * gradient, cube = square * gradient;
  float share = square / (2.f * square + cube * sum + GRAD_CAM_PLUS_PLUS_EPSILON);
  return rectified(gradient) * share;
}

// What one thread adds up over its positions: activations, and what `rule` sums of gradients.
template <typename T>
struct ChannelSums {
  float activations[Group<T>::SIZE];
  float gradients[Group<T>::SIZE];
};

template <typename T>
DEVICE void add_channel_values(int rule, const float *activations, const float *gradients,
                               float inverse_scale, ChannelSums<T> &sums) {
  UNROLL for (int k = 0; k < Group<T>::SIZE; k++) {
    float gradient = gradients[k] * inverse_scale;
    if (rule == X_GRAD_CAM) gradient *= activations[k];
    sums.activations[k] += activations[k];
    sums.gradients[k] += gradient;
  }
}

// Weights of channels, `[R, C]`. Blocks: rows × (groups / 4, rounded up).
template <typename T>
DEVICE void channel_weights(const T *activations, const T *gradients, float *output, int rule,
                            float inverse_scale, int positions, int channels) {
  // A group of sums for each thread.
  SHARED float activation_sums[THREADS * Group<T>::SIZE];
  SHARED float gradient_sums[THREADS * Group<T>::SIZE];
  SHARED float totals[WEIGHT_GROUPS * Group<T>::SIZE];
  const int block_channels = WEIGHT_GROUPS * Group<T>::SIZE;
  Groups<T> groups(channels, activations, gradients);
  BlockPlace place = block_place(blocks_for(groups.count, WEIGHT_GROUPS));
  size_t start = static_cast<size_t>(place.image) * positions * channels;
  FOR_EACH_THREAD(thread) {
    int group = place.block * WEIGHT_GROUPS + thread % WEIGHT_GROUPS;
    ChannelSums<T> sums = {};
    for (int p = thread / WEIGHT_GROUPS; p < positions && group < groups.count;
         p += WEIGHT_ADDERS) {
      float of_activations[Group<T>::SIZE], of_gradients[Group<T>::SIZE];
      size_t pixel = start + static_cast<size_t>(p) * channels;
      groups.load(activations + pixel, group, of_activations);
      groups.load(gradients + pixel, group, of_gradients);
      add_channel_values<T>(rule, of_activations, of_gradients, inverse_scale, sums);
    }
    UNROLL for (int k = 0; k < Group<T>::SIZE; k++) {
      activation_sums[thread * Group<T>::SIZE + k] = sums.activations[k];
      gradient_sums[thread * Group<T>::SIZE + k] = sums.gradients[k];
    }
  }
  WAIT_FOR_THREADS();
  FOR_EACH_THREAD(thread) {
    if (thread < block_channels) totals[thread] = sum_of_adders<T>(activation_sums, thread);
  }
  WAIT_FOR_THREADS();
  if (rule == GRAD_CAM_PLUS_PLUS) {
    // Each gradient's part depends on the channel's whole sum: a second way over the gradients.
    FOR_EACH_THREAD(thread) {
      int column = thread % WEIGHT_GROUPS, group = place.block * WEIGHT_GROUPS + column;
      float parts[Group<T>::SIZE] = {};
      for (int p = thread / WEIGHT_GROUPS; p < positions && group < groups.count;
           p += WEIGHT_ADDERS) {
        float of_gradients[Group<T>::SIZE];
        groups.load(gradients + start + static_cast<size_t>(p) * channels, group, of_gradients);
        UNROLL for (int k = 0; k < Group<T>::SIZE; k++) {
          float total = totals[column * Group<T>::SIZE + k];
          parts[k] += grad_cam_plus_plus_part(of_gradients[k] * inverse_scale, total);
        }
      }
      UNROLL for (int k = 0; k < Group<T>::SIZE; k++) {
        gradient_sums[thread * Group<T>::SIZE + k] = parts[k];
      }
    }
    WAIT_FOR_THREADS();
  }
  FOR_EACH_THREAD(thread) {
    int channel = place.block * block_channels + thread;
    if (thread >= block_channels || channel >= channels) continue;
    float weight = sum_of_adders<T>(gradient_sums, thread);
    if (rule == GRAD_CAM) weight /= positions;
    if (rule == X_GRAD_CAM) weight /= totals[thread] + X_GRAD_CAM_EPSILON;
    output[static_cast<size_t>(place.image) * channels + channel] = weight;
  }
}
KERNEL(channel_weights,
       (const T *activations, const T *gradients, float *output, int rule, float inverse_scale,
        int positions, int channels),
       (activations, gradients, output, rule, inverse_scale, positions, channels))

// A map's part from one group of channels: activations times the channels' weights.
template <typename T>
struct WeightedPart {
  const T *activations;
  const float *weights;
  Groups<T> groups;

  MEMBER float of(int row, size_t pixel, int group) const {
    float values[Group<T>::SIZE], factors[Group<T>::SIZE], sum = 0.f;
    groups.load(activations + pixel * groups.channels, group, values);
    groups.load(weights + static_cast<size_t>(row) * groups.channels, group, factors);
    UNROLL for (int k = 0; k < Group<T>::SIZE; k++) sum += values[k] * factors[k];
    return sum;
  }
};

// A map's part from one group of channels: activations times gradients, of which LayerCAM takes the
// positive ones.
template <typename T>
struct GradientPart {
  const T *activations;
  const T *gradients;
  Groups<T> groups;
  int rule;
  float inverse_scale;

  MEMBER float of(int, size_t pixel, int group) const {
    float values[Group<T>::SIZE], factors[Group<T>::SIZE], sum = 0.f;
    groups.load(activations + pixel * groups.channels, group, values);
    groups.load(gradients + pixel * groups.channels, group, factors);
    UNROLL for (int k = 0; k < Group<T>::SIZE; k++) {
      float factor = factors[k] * inverse_scale;
      sum += values[k] * (rule == LAYER_CAM ? rectified(factor) : factor);
    }
    return sum;
  }
};

// Maps `[R, P]`: the rectified sum of all parts at each position. `lanes` threads, a power of two,
// divide the groups of a position. Blocks: rows × (positions × lanes / 256, rounded up).
template <typename Part>
DEVICE void sum_to_maps(const Part &part, float *partial, float *output, int lanes, int positions) {
  int block_positions = THREADS / lanes;
  BlockPlace place = block_place(blocks_for(positions, block_positions));
  int first_position = place.block * block_positions;
  FOR_EACH_THREAD(thread) {
    int position = first_position + thread / lanes;
    float sum = 0.f;
    if (position < positions) {
      size_t pixel = static_cast<size_t>(place.image) * positions + position;
      for (int group = thread % lanes; group < part.groups.count; group += lanes) {
        sum += part.of(place.image, pixel, group);
      }
    }
    partial[thread] = sum;
  }
  WAIT_FOR_THREADS();
  FOR_EACH_THREAD(thread) {
    int position = first_position + thread;
    if (thread >= block_positions || position >= positions) continue;
    float sum = 0.f;
    for (int lane = 0; lane < lanes; lane++) sum += partial[thread * lanes + lane];
    output[static_cast<size_t>(place.image) * positions + position] = rectified(sum);
  }
}

// Maps of activations with weights of their channels, `[R, C]`. Blocks: see sum_to_maps.
template <typename T>
DEVICE void weighted_maps(const T *activations, const float *weights, float *output, int lanes,
                          int positions, int channels) {
  SHARED float partial[THREADS];
  WeightedPart<T> part = {activations, weights, Groups<T>(channels, activations, weights)};
  sum_to_maps(part, partial, output, lanes, positions);
}
KERNEL(weighted_maps,
       (const T *activations, const float *weights, float *output, int lanes, int positions,
        int channels),
       (activations, weights, output, lanes, positions, channels))

// Maps of activations with a gradient at each position. Blocks: see sum_to_maps.
template <typename T>
DEVICE void gradient_maps(const T *activations, const T *gradients, float *output, int rule,
                          float inverse_scale, int lanes, int positions, int channels) {
  SHARED float partial[THREADS];
  GradientPart<T> part = {activations, gradients, Groups<T>(channels, activations, gradients),
                          rule, inverse_scale};
  sum_to_maps(part, partial, output, lanes, positions);
}
KERNEL(gradient_maps,
       (const T *activations, const T *gradients, float *output, int rule, float inverse_scale,
        int lanes, int positions, int channels),
       (activations, gradients, output, rule, inverse_scale, lanes, positions, channels))
