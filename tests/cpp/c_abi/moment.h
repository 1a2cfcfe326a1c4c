/* One moment for the tests of the C ABI: six cameras and a 3D radar, with their images and points. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "imkd/imkd.h"

#define MS 1000000LL /* ns */

enum { kCameras = 6, kWidth = 320, kHeight = 160, kPoints = 400 };

static int failures = 0;

#define CHECK(condition)                                                            \
  do {                                                                              \
    if (!(condition)) {                                                             \
      ++failures;                                                                   \
      fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
    }                                                                               \
  } while (0)

static char rig[8192];
static uint8_t pixels[kCameras][kHeight * kWidth * 3];
static float points[kPoints * 5];
static imkd_image images[kCameras];
static imkd_sweep sweep;
static imkd_frames frames;

/* Adds a camera at a height of 1.5 m whose optical axis has these x and y in the ego frame; returns the new end. */
static char* add_camera(char* end, int index, double x, double y) {
  return end +
         sprintf(end,
                 "%s{\"name\": \"C%d\", \"width\": %d, \"height\": %d, "
                 "\"K\": [[200, 0, 160], [0, 200, 80], [0, 0, 1]], \"distortion\": \"none\", \"coefficients\": [], "
                 "\"T_ego_camera\": [[%.12f, 0, %.12f, 0], [%.12f, 0, %.12f, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]]}",
                 index ? ", " : "", index, kWidth, kHeight, y, x, -x, y);
}

/* Cameras in six directions and a radar to the front. */
static void make_rig(void) {
  static const double axes[kCameras][2] = {{1, 0},  {0.5, 0.866025403784},   {-0.5, 0.866025403784},
                                           {-1, 0}, {-0.5, -0.866025403784}, {0.5, -0.866025403784}};
  char* end = rig + sprintf(rig, "{\"cameras\": [");
  for (int i = 0; i < kCameras; ++i) end = add_camera(end, i, axes[i][0], axes[i][1]);
  end += sprintf(end, "], \"radars\": [{\"name\": \"R\", \"velocity\": \"compensated\", \"period\": 0, ");
  sprintf(end, "\"T_ego_radar\": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}]}");
}

/* Pseudo-random numbers, 0 to 2^24 - 1. */
static uint32_t next_number(uint32_t* seed) {
  *seed = *seed * 1664525u + 1013904223u;
  return *seed >> 8;
}

/* A fixed pattern for every sensor. */
static void make_moment(void) {
  make_rig();
  uint32_t seed = 1;
  for (int i = 0; i < kCameras; ++i) {
    for (int k = 0; k < kHeight * kWidth * 3; ++k) pixels[i][k] = (uint8_t)(next_number(&seed) >> 16);
    images[i].struct_size = sizeof images[i];
    images[i].width = kWidth;
    images[i].height = kHeight;
    images[i].data = pixels[i];
  }

  /* x 2..42 m, y -20..20 m, z 0..1 m, intensity 0..20 dB, velocity -2..2 m/s */
  static const float first[5] = {2, -20, 0, 0, -2}, range[5] = {40, 40, 1, 20, 4};
  for (int k = 0; k < kPoints * 5; ++k)
    points[k] = first[k % 5] + range[k % 5] * ((float)next_number(&seed) / 16777216.0f);
  sweep.struct_size = sizeof sweep;
  sweep.count = kPoints;
  sweep.points = points;

  frames.struct_size = sizeof frames;
  frames.timestamp_ns = 1000000000;
  frames.image_count = kCameras;
  frames.images = images;
  frames.sweep_count = 1;
  frames.sweeps = &sweep;
}

static inline imkd_result empty_result(void) {
  imkd_result result;
  memset(&result, 0, sizeof result);
  result.struct_size = sizeof result;
  return result;
}
