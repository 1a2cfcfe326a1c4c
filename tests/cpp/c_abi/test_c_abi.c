/* The detector of the C ABI from C99: test_c_abi BUNDLE.imkd, a bundle for six cameras and a 3D radar. Exit code 0: all
 * checks passed; 77: no engine, and the model was not run. */
#include <pthread.h>

#include "moment.h"

static void test_without_a_model(const char* bundle) {
  imkd_detector* d = imkd_detector_new();
  imkd_result result = empty_result();
  imkd_options options = {0, 0, NULL, NULL, 0, 0, 0, 0, NULL};
  CHECK(d != NULL);
  CHECK(imkd_abi_version() == IMKD_ABI_VERSION);
  CHECK(strcmp(imkd_detector_error(d), "") == 0);
  CHECK(imkd_detector_infer(d, &frames, &result) == 501);
  CHECK(imkd_detector_set_rig(d, rig) == 501);
  CHECK(imkd_detector_reset(d) == 501);
  CHECK(strncmp(imkd_detector_error(d), "error[E0501]", 12) == 0 &&
        strstr(imkd_detector_error(d), "imkd_detector_load"));
  CHECK(imkd_detector_load(d, "no such.imkd", rig, NULL) == 401);
  CHECK(strncmp(imkd_detector_error(d), "error[E0401]", 12) == 0 && strstr(imkd_detector_error(d), "no such.imkd"));
  CHECK(imkd_detector_load(d, NULL, rig, NULL) == 401);
  CHECK(imkd_detector_load(d, bundle, "{", NULL) == 211);
  CHECK(imkd_detector_load(d, bundle, NULL, NULL) == 211);
  CHECK(imkd_detector_load(d, bundle, rig, &options) == 703); /* struct_size 0 */
  options.struct_size = sizeof options;
  options.engine = "no such engine";
  CHECK(imkd_detector_load(d, bundle, rig, &options) == 501);
  CHECK(imkd_detector_name(d, IMKD_CLASSES, 0) == NULL);
  CHECK(strcmp(imkd_detector_name(d, IMKD_MODES, 0), "full") == 0 &&
        strcmp(imkd_detector_name(d, IMKD_MODES, 4), "blind") == 0);
  CHECK(imkd_detector_name(d, IMKD_MODES, 5) == NULL && imkd_detector_name(d, IMKD_SENSOR_STATES, 8) == NULL);
  CHECK(strcmp(imkd_detector_name(d, IMKD_SENSOR_STATES, IMKD_SENSOR_UNUSABLE), "unusable") == 0);
  CHECK(strcmp(imkd_detector_name(d, IMKD_SENSOR_STATES, 4), "missing") == 0 &&
        strcmp(imkd_detector_name(NULL, IMKD_STAGES, 5), "bev") == 0);
  CHECK(imkd_detector_name(d, (imkd_names)99, 0) == NULL);
  CHECK(imkd_detector_infer(NULL, &frames, &result) == IMKD_UNEXPECTED && imkd_detector_error(NULL)[0] != 0);
  imkd_detector_destroy(d);
  imkd_detector_destroy(NULL);
}

static void test_infer(imkd_detector* d) {
  imkd_result result = empty_result();
  CHECK(imkd_detector_infer(d, &frames, &result) == IMKD_OK);
  CHECK(result.timestamp_ns == 1000000000 && result.mode == IMKD_PARTIAL && result.camera_count == kCameras &&
        result.radar_count == 1);
  /* One radar where the bundle was trained with five. */
  CHECK(result.warning_count > 0 && imkd_warning_at(&result, 0)->code == 104);
  CHECK(strstr(imkd_warning_at(&result, 0)->text, "radar") != NULL);
  CHECK(result.radar_points + result.radar_points_outside == kPoints && result.total_us > 0 && result.stage_count == 7);
  CHECK(result.camera_states[0] == IMKD_SENSOR_OK && result.radar_states[0] == IMKD_SENSOR_OK &&
        result.segmentation == NULL);
  const uint32_t count = result.detection_count;
  CHECK(count > 0 && result.detection_stride == sizeof(imkd_detection));
  imkd_detection* first = malloc((count + 1) * sizeof *first);
  for (uint32_t i = 0; i < count; ++i) first[i] = *imkd_detection_at(&result, i);
  for (uint32_t i = 0; i < count; ++i) {
    CHECK(first[i].score > 0 && first[i].score <= 1 && (i == 0 || first[i].score <= first[i - 1].score));
    CHECK(first[i].length > 0 && imkd_detector_name(d, IMKD_CLASSES, (uint32_t)first[i].label) != NULL);
  }
  CHECK(imkd_detector_reset(d) == IMKD_OK && imkd_detector_set_rig(d, rig) == IMKD_OK);
  for (int i = 0; i < kCameras; ++i) {
    images[i].row_stride = kWidth * 3;
    images[i].pixel_stride = 3;
    images[i].channel_stride = 1;
  }
  CHECK(imkd_detector_infer(d, &frames, &result) == IMKD_OK && result.detection_count == count);
  for (uint32_t i = 0; i < count; ++i) CHECK(memcmp(&first[i], imkd_detection_at(&result, i), sizeof *first) == 0);
  images[2].data = NULL;
  CHECK(imkd_detector_infer(d, &frames, &result) == IMKD_OK && result.mode == IMKD_PARTIAL &&
        result.camera_states[2] == IMKD_SENSOR_MISSING);
  images[2].data = pixels[2];
  /* a second ago */
  sweep.has_timestamp = 1;
  sweep.timestamp_ns = 1;
  CHECK(imkd_detector_infer(d, &frames, &result) == IMKD_OK && result.mode == IMKD_CAMERA_ONLY &&
        result.radar_states[0] == IMKD_SENSOR_STALE);
  sweep.has_timestamp = 0;
  free(first);
}

static void test_callers_mistakes(imkd_detector* d) {
  static const double skewed[16] = {1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}, still[3] = {0, 0, 0};
  imkd_result result = empty_result();
  imkd_frames f = frames;
  CHECK(imkd_detector_infer(d, NULL, &result) == 703 && imkd_detector_infer(d, &frames, NULL) == 703);
  result.struct_size = 8;
  CHECK(imkd_detector_infer(d, &frames, &result) == 703 && result.detection_count == 0);
  result.struct_size = sizeof result;
  f.struct_size = 0;
  CHECK(imkd_detector_infer(d, &f, &result) == 703);
  f = frames;
  f.reserved = 1;
  CHECK(imkd_detector_infer(d, &f, &result) == 703);
  f = frames;
  f.image_count = 5;
  CHECK(imkd_detector_infer(d, &f, &result) == 204);
  f = frames;
  f.images = NULL;
  CHECK(imkd_detector_infer(d, &f, &result) == 703);
  f = frames;
  f.T_world_ego = skewed;
  CHECK(imkd_detector_infer(d, &f, &result) == 215);
  f = frames;
  f.twist = still;
  CHECK(imkd_detector_infer(d, &f, &result) == IMKD_OK);
  images[3].struct_size = 4;
  CHECK(imkd_detector_infer(d, &frames, &result) == 703);
  images[3].struct_size = sizeof images[3];
  images[0].struct_size = sizeof images[0] + 1; /* the next item would not be aligned */
  CHECK(imkd_detector_infer(d, &f, &result) == 703);
  images[0].struct_size = sizeof images[0];
  images[3].width = kWidth - 1;
  /* it had the right size before: the camera's fault, not the caller's */
  CHECK(imkd_detector_infer(d, &frames, &result) == IMKD_OK && result.camera_states[3] == IMKD_SENSOR_INVALID);
  images[3].width = kWidth;
  sweep.radar = 7;
  CHECK(imkd_detector_infer(d, &frames, &result) == 203);
  sweep.radar = 0;
  CHECK(imkd_detector_infer(d, &frames, &result) == IMKD_OK && result.mode == IMKD_PARTIAL);
}

/* A caller compiled against a later header: its structs end with fields that this library does not know. */
static void test_newer_caller(imkd_detector* d) {
  struct {
    imkd_frames known;
    uint64_t more[2];
  } later = {frames, {0, 0}};
  struct {
    imkd_result known;
    uint64_t more[2];
  } result = {empty_result(), {7, 7}};
  struct {
    imkd_image known;
    uint64_t more;
  } wide[kCameras];
  for (int i = 0; i < kCameras; ++i) {
    wide[i].known = images[i];
    wide[i].known.struct_size = sizeof wide[i];
    wide[i].more = 0;
  }
  later.known.struct_size = sizeof later;
  later.known.images = &wide[0].known;
  result.known.struct_size = sizeof result;
  CHECK(imkd_detector_infer(d, &later.known, &result.known) == IMKD_OK && result.known.mode == IMKD_PARTIAL);
  CHECK(result.more[0] == 7 && result.more[1] == 7 && result.known.struct_size == sizeof result);
  later.more[1] = 1;
  CHECK(imkd_detector_infer(d, &later.known, &result.known) == 703 && strstr(imkd_detector_error(d), "newer"));
  later.more[1] = 0;
  wide[5].more = 1;
  CHECK(imkd_detector_infer(d, &later.known, &result.known) == 703);
}

/* A caller compiled against version 1, with shorter structs; then the fields that version 2 adds. */
static void test_older_caller_and_debug_maps(const char* bundle, imkd_options options) {
  enum { kOptions1 = offsetof(imkd_options, debug), kResult1 = offsetof(imkd_result, debug) };
  imkd_result result = empty_result();
  imkd_detector* d = imkd_detector_new();
  /* beyond the end of the struct: not read */
  options.struct_size = kOptions1;
  options.debug = 1;
  CHECK(imkd_detector_load(d, bundle, rig, &options) == IMKD_OK);
  result.struct_size = kResult1;
  result.debug_count = 77;
  CHECK(imkd_detector_infer(d, &frames, &result) == IMKD_OK && result.detection_count > 0 && result.debug_count == 77);
  result.struct_size = kResult1 - 1;
  CHECK(imkd_detector_infer(d, &frames, &result) == 703);
  result = empty_result();
  CHECK(imkd_detector_infer(d, &frames, &result) == IMKD_OK && result.debug_count == 0);
  options.struct_size = sizeof options;
  CHECK(imkd_detector_load(d, bundle, rig, &options) == IMKD_OK && imkd_detector_infer(d, &frames, &result) == IMKD_OK);
  CHECK(result.debug_count == 2);
  for (uint32_t i = 0; i < result.debug_count; ++i) {
    const imkd_map* map = imkd_map_at(&result, i);
    float lowest = 1, highest = 0;
    for (int32_t k = 0; k < map->rows * map->columns; ++k) {
      if (map->data[k] < lowest) lowest = map->data[k];
      if (map->data[k] > highest) highest = map->data[k];
    }
    CHECK(strcmp(map->name, i == 0 ? "i_cam" : "i_rad") == 0 && map->rows == 128 && map->columns == 128);
    CHECK(0 <= lowest && lowest < highest && highest <= 1);
  }
  imkd_detector_destroy(d);
}

struct caller {
  imkd_detector* d;
  int ok, busy, failed; /* calls, by their result */
};

static void* infer_on(void* context) {
  struct caller* caller = context;
  while (caller->ok < 10 && caller->failed == 0) {
    imkd_result result = empty_result();
    const int code = imkd_detector_infer(caller->d, &frames, &result);
    ++*(code == IMKD_OK ? &caller->ok : code == 506 ? &caller->busy : &caller->failed);
  }
  return NULL;
}

static void test_a_call_of_a_second_thread_is_refused(imkd_detector* d) {
  struct caller a = {d, 0, 0, 0}, b = {d, 0, 0, 0};
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, infer_on, &a) == 0);
  infer_on(&b);
  pthread_join(thread, NULL);
  CHECK(a.ok == 10 && b.ok == 10 && a.busy + b.busy > 0 && a.failed + b.failed == 0);
  CHECK(strncmp(imkd_detector_error(d), "error[E0506]", 12) == 0);
}

struct run {
  imkd_detector* d;
  uint32_t count;
  uint8_t detections[1 << 14];
};

/* Ten calls; copies the detections of the last one. */
static void* infer_ten_times(void* context) {
  struct run* run = context;
  imkd_result result = empty_result();
  for (int i = 0; i < 10; ++i) CHECK(imkd_detector_infer(run->d, &frames, &result) == IMKD_OK);
  run->count = result.detection_count;
  if (run->count * sizeof(imkd_detection) <= sizeof run->detections)
    memcpy(run->detections, result.detections, run->count * sizeof(imkd_detection));
  return NULL;
}

static void test_two_handles_at_once(imkd_detector* d, const char* bundle, const imkd_options* options) {
  static struct run one, two, before;
  pthread_t thread;
  one.d = before.d = d;
  two.d = imkd_detector_new();
  CHECK(imkd_detector_load(two.d, bundle, rig, options) == IMKD_OK);
  infer_ten_times(&before);
  CHECK(pthread_create(&thread, NULL, infer_ten_times, &one) == 0);
  infer_ten_times(&two);
  pthread_join(thread, NULL);
  CHECK(before.count > 0 && one.count == before.count && two.count == before.count);
  CHECK(memcmp(one.detections, before.detections, sizeof one.detections) == 0 &&
        memcmp(two.detections, before.detections, sizeof two.detections) == 0);
  imkd_detector_destroy(two.d);
}

int main(int argc, char** argv) {
  if (argc != 2) return fprintf(stderr, "usage: test_c_abi BUNDLE.imkd\n"), 2;
  make_moment();
  test_without_a_model(argv[1]);
  imkd_detector* d = imkd_detector_new();
  imkd_options options = {sizeof options, 1, "onnxruntime", "cpu", 0.01f, 0, 0, 0, NULL};
  const int code = imkd_detector_load(d, argv[1], rig, &options);
  if (code == 501) {
    fprintf(stderr, "no engine: imkd_detector_infer is NOT tested: %s\n", imkd_detector_error(d));
    imkd_detector_destroy(d);
    return failures ? 1 : 77;
  }
  CHECK(code == IMKD_OK);
  if (code != IMKD_OK) fprintf(stderr, "%s\n", imkd_detector_error(d));
  if (code == IMKD_OK) {
    test_infer(d);
    test_callers_mistakes(d);
    test_newer_caller(d);
    test_older_caller_and_debug_maps(argv[1], options);
    test_a_call_of_a_second_thread_is_refused(d);
    test_two_handles_at_once(d, argv[1], &options);
    /* A failed load leaves the loaded model in place. */
    CHECK(imkd_detector_load(d, "no such.imkd", rig, NULL) == 401);
    imkd_result result = empty_result();
    CHECK(imkd_detector_infer(d, &frames, &result) == IMKD_OK);
  }
  imkd_detector_destroy(d);
  return failures ? 1 : 0;
}
