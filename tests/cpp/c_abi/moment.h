/* One moment for the C ABI's tests: six cameras, a 3D radar, and what they see. */
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

/* Cameras all round and a radar ahead; what they see is a fixed pattern. */
static void make_moment(void) {
  static const double turn[kCameras][2] = {{1, 0},  {0.5, 0.866025403784},   {-0.5, 0.866025403784},
                                           {-1, 0}, {-0.5, -0.866025403784}, {0.5, -0.866025403784}};
  char* end = rig + sprintf(rig, "{\"cameras\": [");
  for (int i = 0; i < kCameras; ++i)
    end += sprintf(end,
                   "%s{\"name\": \"C%d\", \"width\": %d, \"height\": %d, \"K\": [[200, 0, 160], [0, 200, 80], [0, 0, "
                   "1]], \"distortion\": \"none\", "
                   "\"coefficients\": [], \"T_ego_camera\": [[%.12f, 0, %.12f, 0], [%.12f, 0, %.12f, 0], [0, -1, 0, "
                   "1.5], [0, 0, 0, 1]]}",
                   i ? ", " : "", i, kWidth, kHeight, turn[i][1], turn[i][0], -turn[i][0], turn[i][1]);
  sprintf(
      end,
      "], \"radars\": [{\"name\": \"R\", \"T_ego_radar\": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], "
      "\"velocity\": \"compensated\", \"period\": 0}]}");
  uint32_t seed = 1;
  for (int i = 0; i < kCameras; ++i) {
    for (int k = 0; k < kHeight * kWidth * 3; ++k)
      pixels[i][k] = (uint8_t)((seed = seed * 1664525u + 1013904223u) >> 24);
    images[i].struct_size = sizeof images[i];
    images[i].width = kWidth, images[i].height = kHeight, images[i].data = pixels[i];
  }
  for (int k = 0; k < kPoints * 5; ++k) {
    const float unit = (float)((seed = seed * 1664525u + 1013904223u) >> 8) / 16777216.0f;
    points[k] = k % 5 == 0   ? 2 + 40 * unit
                : k % 5 == 1 ? 40 * unit - 20
                : k % 5 == 2 ? unit
                : k % 5 == 3 ? 20 * unit
                             : 4 * unit - 2;
  }
  sweep.struct_size = sizeof sweep, sweep.radar = 0, sweep.count = kPoints, sweep.points = points;
  frames.struct_size = sizeof frames, frames.timestamp_ns = 1000000000;
  frames.image_count = kCameras, frames.images = images, frames.sweep_count = 1, frames.sweeps = &sweep;
}

static inline imkd_result empty_result(void) {
  imkd_result result;
  memset(&result, 0, sizeof result);
  result.struct_size = sizeof result;
  return result;
}
