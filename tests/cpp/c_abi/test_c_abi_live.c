/* The synchronizer in the C ABI, from C99: test_c_abi_live BUNDLE.imkd, a bundle for six cameras and a 3D radar whose
 * max_age is 0.6 s. Exit code 0: all checks passed; 77: no engine, and the frames were not inferred. The expected times
 * are worked out by hand. */
#include <pthread.h>

#include "moment.h"

static const char* model;

static imkd_synchronizer* open_synchronizer(const imkd_synchronizer_options* options) {
  imkd_synchronizer* s = imkd_synchronizer_new();
  CHECK(imkd_synchronizer_load(s, model, rig, options) == IMKD_OK);
  return s;
}

/* The result of pushing an image or the sweep, with its time and its arrival in ms. The pushed memory is overwritten
 * afterwards. */
static int push_image(imkd_synchronizer* s, int camera, int time, int now) {
  static uint8_t scratch[sizeof pixels[0]];
  int32_t pushed = -1;
  imkd_image image = images[camera];
  memcpy(scratch, pixels[camera], sizeof scratch);
  image.data = scratch;
  image.has_timestamp = 1;
  image.timestamp_ns = time * MS;
  CHECK(imkd_synchronizer_push_camera(s, camera, &image, now * MS, NULL, NULL, &pushed) == IMKD_OK);
  memset(scratch, 0, sizeof scratch);
  return pushed;
}

static int push_sweep(imkd_synchronizer* s, int time, int now) {
  static float scratch[kPoints * 5];
  int32_t pushed = -1;
  imkd_sweep item = sweep;
  memcpy(scratch, points, sizeof scratch);
  item.points = scratch;
  item.has_timestamp = 1;
  item.timestamp_ns = time * MS;
  CHECK(imkd_synchronizer_push_radar(s, &item, now * MS, NULL, NULL, &pushed) == IMKD_OK);
  memset(scratch, 0, sizeof scratch);
  return pushed;
}

static const imkd_frames* pop(imkd_synchronizer* s, int now, uint32_t* complete) {
  const imkd_frames* popped = &frames; /* the call must overwrite it */
  CHECK(imkd_synchronizer_pop(s, now * MS, &popped, complete) == IMKD_OK);
  return popped;
}

/* A popped frame gives the same boxes as the same moment assembled by hand. */
static void infer_both(imkd_detector* d, const imkd_frames* popped, const imkd_frames* by_hand) {
  imkd_result one = empty_result(), two = empty_result();
  if (!d) return;
  CHECK(imkd_detector_reset(d) == IMKD_OK && imkd_detector_infer(d, by_hand, &one) == IMKD_OK &&
        one.detection_count > 0);
  const size_t bytes = one.detection_count * sizeof(imkd_detection);
  void* detections = malloc(bytes);
  memcpy(detections, one.detections, bytes);
  CHECK(imkd_detector_reset(d) == IMKD_OK && imkd_detector_infer(d, popped, &two) == IMKD_OK);
  CHECK(two.timestamp_ns == one.timestamp_ns && two.mode == one.mode && two.radar_points == one.radar_points);
  CHECK(two.detection_count == one.detection_count && memcmp(detections, two.detections, bytes) == 0);
  free(detections);
}

static void test_items_out_of_order_become_a_frame(imkd_detector* d) {
  imkd_synchronizer* s = open_synchronizer(NULL);
  imkd_counts counts;
  uint32_t complete = 7;
  CHECK(push_sweep(s, 1020, 1021) == IMKD_PUSHED_KEPT);
  for (int i = kCameras - 1; i > 0; --i) CHECK(push_image(s, i, 1000 + i, 1030) == IMKD_PUSHED_KEPT);
  CHECK(pop(s, 1030, &complete) == NULL && complete == 0);
  CHECK(push_image(s, 3, 1003, 1031) == IMKD_PUSHED_DUPLICATE && push_image(s, 0, 1132, 1031) == IMKD_PUSHED_FUTURE);
  CHECK(push_image(s, 0, 30, 1031) == IMKD_PUSHED_LATE && push_image(s, 0, 1000, 1032) == IMKD_PUSHED_KEPT);
  CHECK(push_sweep(s, 980, 1033) == IMKD_PUSHED_KEPT); /* the older of the two arrives last */
  const imkd_frames* popped = pop(s, 1033, &complete);
  CHECK(popped != NULL && complete == 1);
  if (!popped) return;
  CHECK(popped->timestamp_ns == 1000 * MS && popped->image_count == kCameras && popped->sweep_count == 2);
  CHECK(popped->struct_size == sizeof(imkd_frames) && popped->T_world_ego == NULL && popped->twist == NULL);
  CHECK(popped->sweeps[0].timestamp_ns == 980 * MS && popped->sweeps[1].timestamp_ns == 1020 * MS);
  imkd_image hand[kCameras];
  imkd_sweep two[2] = {sweep, sweep};
  imkd_frames by_hand = frames;
  for (int i = 0; i < kCameras; ++i) {
    const imkd_image* image = &popped->images[i];
    CHECK(image->has_timestamp && image->timestamp_ns == (1000 + i) * MS && image->width == kWidth &&
          image->height == kHeight);
    CHECK(image->row_stride == 3 * kWidth && memcmp(image->data, pixels[i], sizeof pixels[i]) == 0);
    hand[i] = images[i];
    hand[i].has_timestamp = 1;
    hand[i].timestamp_ns = (1000 + i) * MS;
  }
  for (int i = 0; i < 2; ++i) two[i].has_timestamp = 1, two[i].timestamp_ns = (980 + 40 * i) * MS;
  by_hand.timestamp_ns = 1000 * MS;
  by_hand.images = hand;
  by_hand.sweeps = two;
  by_hand.sweep_count = 2;
  infer_both(d, popped, &by_hand);
  CHECK(pop(s, 1034, NULL) == NULL);
  counts.struct_size = sizeof counts;
  CHECK(imkd_synchronizer_counts(s, &counts) == IMKD_OK && counts.kept == 8 && counts.duplicate == 1 &&
        counts.future == 1);
  CHECK(counts.late == 1 && counts.invalid == 0 && counts.complete == 1 && counts.incomplete == 0 &&
        counts.restarts == 0);
  imkd_synchronizer_destroy(s);
}

/* Each stride that is 0 has the value of dense pixels, independent of the other strides. */
static void test_a_stride_of_0_is_that_of_dense_pixels(void) {
  enum { kPitch = 3 * kWidth + 40 };
  static uint8_t padded[kHeight * kPitch];
  static const ptrdiff_t strides[5][3] = {{0, 0, 0}, {3 * kWidth, 0, 0}, {kPitch, 0, 0}, {kPitch, 3, 1}, {0, 3, 1}};
  for (int k = 0; k < 5; ++k) {
    imkd_synchronizer* s = open_synchronizer(NULL);
    imkd_image image = images[0];
    const int dense = strides[k][0] != kPitch;
    for (int row = 0; row < kHeight; ++row) memcpy(padded + row * kPitch, pixels[0] + row * 3 * kWidth, 3 * kWidth);
    image.data = dense ? pixels[0] : padded;
    image.has_timestamp = 1;
    image.timestamp_ns = 1000 * MS;
    image.row_stride = strides[k][0];
    image.pixel_stride = strides[k][1];
    image.channel_stride = strides[k][2];
    CHECK(imkd_synchronizer_push_camera(s, 0, &image, 1000 * MS, NULL, NULL, NULL) == IMKD_OK);
    const imkd_frames* popped = pop(s, 1200, NULL);
    CHECK(popped && memcmp(popped->images[0].data, pixels[0], sizeof pixels[0]) == 0);
    imkd_synchronizer_destroy(s);
  }
}

static void test_a_camera_that_does_not_deliver_is_absent(imkd_detector* d) {
  imkd_synchronizer_options options = {sizeof options, 0, 0, 0, "C1", 0, 0.05, 0, 0, 0};
  imkd_synchronizer* s = open_synchronizer(&options);
  uint32_t complete = 7;
  for (int i = 0; i < kCameras; ++i) CHECK(i == 3 || push_image(s, i, 1000 + i, 1010) == IMKD_PUSHED_KEPT);
  CHECK(push_sweep(s, 1000, 1010) == IMKD_PUSHED_KEPT);
  CHECK(pop(s, 1059, NULL) == NULL); /* timeout is 50 ms from the arrival of the reference, which is C1 */
  const imkd_frames* popped = pop(s, 1060, &complete);
  CHECK(popped != NULL && complete == 0 && popped->timestamp_ns == 1001 * MS && popped->images[3].data == NULL);
  imkd_result result = empty_result();
  if (d && popped) CHECK(imkd_detector_infer(d, popped, &result) == IMKD_OK && result.mode == IMKD_PARTIAL);
  if (d && popped) CHECK(result.camera_states[3] == IMKD_SENSOR_MISSING && result.camera_states[4] == IMKD_SENSOR_OK);
  CHECK(push_image(s, 0, 1040, 1070) == IMKD_PUSHED_KEPT && imkd_synchronizer_reset(s) == IMKD_OK &&
        pop(s, 9000, NULL) == NULL);
  imkd_synchronizer_destroy(s);
}

static void test_the_pose_of_a_frame_lies_between_its_neighbours(void) {
  double T[16] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1};
  const double skewed[16] = {2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1};
  const double twist[3] = {10, 0, 0};
  imkd_synchronizer* s = open_synchronizer(NULL);
  int32_t pushed = -1;
  CHECK(imkd_synchronizer_push_ego(s, T, twist, 1000 * MS, 1000 * MS, &pushed) == IMKD_OK &&
        pushed == IMKD_PUSHED_KEPT);
  CHECK(imkd_synchronizer_push_ego(s, skewed, NULL, 1050 * MS, 1050 * MS, &pushed) == IMKD_OK &&
        pushed == IMKD_PUSHED_INVALID);
  for (int i = 0; i < kCameras; ++i) CHECK(push_image(s, i, 1050, 1060) == IMKD_PUSHED_KEPT);
  /* The ego motion has not reached 1050 ms. */
  CHECK(push_sweep(s, 1075, 1080) == IMKD_PUSHED_KEPT && pop(s, 1080, NULL) == NULL);
  T[3] = 1;
  CHECK(imkd_synchronizer_push_ego(s, T, twist, 1100 * MS, 1100 * MS, NULL) == IMKD_OK);
  const imkd_frames* popped = pop(s, 1100, NULL);
  CHECK(popped && popped->T_world_ego && popped->twist && popped->sweeps[0].T_world_ego);
  if (!popped || !popped->T_world_ego || !popped->twist || !popped->sweeps[0].T_world_ego) return;
  CHECK(popped->T_world_ego[3] > 0.4999 && popped->T_world_ego[3] < 0.5001 && popped->T_world_ego[7] == 0 &&
        popped->T_world_ego[0] == 1);
  CHECK(popped->sweeps[0].T_world_ego[3] > 0.7499 && popped->sweeps[0].T_world_ego[3] < 0.7501);
  CHECK(popped->twist[0] > 9.999 && popped->twist[0] < 10.001);
  imkd_synchronizer_destroy(s);
}

static void count(void* user) { ++*(int*)user; }

static void test_lent_memory_is_released_once(void) {
  imkd_synchronizer_options options = {sizeof options, 0, 0, 0, "R", 0, 0, 0, 0, 0};
  imkd_synchronizer* s = open_synchronizer(&options);
  imkd_sweep item = sweep;
  imkd_image image = images[2];
  int first = 0, again = 0, failed = 0, no_handle = 0, unread = 0;
  item.has_timestamp = image.has_timestamp = 1;
  item.timestamp_ns = 1000 * MS;
  image.timestamp_ns = 1500 * MS;
  CHECK(imkd_synchronizer_push_radar(s, &item, 1000 * MS, count, &first, NULL) == IMKD_OK && first == 0);
  /* A duplicate. */
  CHECK(imkd_synchronizer_push_radar(s, &item, 1000 * MS, count, &again, NULL) == IMKD_OK && again == 1);
  CHECK(imkd_synchronizer_push_camera(s, 6, &image, 1000 * MS, count, &failed, NULL) == 203 && failed == 1);
  CHECK(imkd_synchronizer_push_camera(NULL, 2, &image, 1000 * MS, count, &no_handle, NULL) == IMKD_UNEXPECTED &&
        no_handle == 1);
  const imkd_frames* popped = pop(s, 1100, NULL);
  CHECK(popped && popped->sweeps[0].points == points && first == 0); /* not a copy */
  CHECK(pop(s, 1700, NULL) == NULL && first == 0);                   /* a later frame may still use the sweep */
  item.timestamp_ns = 1700 * MS;
  CHECK(imkd_synchronizer_push_radar(s, &item, 1700 * MS, NULL, NULL, NULL) == IMKD_OK && pop(s, 1800, NULL) != NULL &&
        first == 1);
  image.timestamp_ns = 1800 * MS;
  CHECK(imkd_synchronizer_push_camera(s, 2, &image, 1800 * MS, count, &unread, NULL) == IMKD_OK && unread == 0);
  imkd_synchronizer_destroy(s);
  CHECK(first == 1 && again == 1 && failed == 1 && no_handle == 1 && unread == 1);
}

/* ---- threads ---- */
struct driver {
  imkd_synchronizer* s;
  int camera, kept, released;
};

static void* drive(void* context) {
  struct driver* driver = context;
  for (int i = 0; i < 200; ++i) {
    imkd_image image = images[driver->camera];
    int32_t pushed = -1;
    image.has_timestamp = 1;
    image.timestamp_ns = 1000 * MS + i;
    CHECK(imkd_synchronizer_push_camera(driver->s, driver->camera, &image, 1000 * MS, count, &driver->released,
                                        &pushed) == IMKD_OK);
    driver->kept += pushed == IMKD_PUSHED_KEPT;
  }
  return NULL;
}

static void test_two_drivers_push_at_once(void) {
  imkd_synchronizer_options options = {sizeof options, 200, 0, 0, NULL, 0, 0, 0, 0, 0};
  struct driver a = {open_synchronizer(&options), 0, 0, 0}, b = {a.s, 1, 0, 0};
  imkd_counts counts;
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, drive, &a) == 0);
  drive(&b);
  pthread_join(thread, NULL);
  counts.struct_size = sizeof counts;
  CHECK(a.kept == 200 && b.kept == 200 && imkd_synchronizer_counts(a.s, &counts) == IMKD_OK && counts.kept == 400);
  CHECK(a.released == 0 && b.released == 0);
  imkd_synchronizer_destroy(a.s);
  CHECK(a.released == 200 && b.released == 200);
}

static void* try_pop(void* context) {
  const imkd_frames* popped = NULL;
  return imkd_synchronizer_pop(context, 1000 * MS, &popped, NULL) == 506 && !popped ? context : NULL;
}

static void* refused = NULL; /* the handle whose second pop was refused */

/* A release callback: it runs inside the pop that releases the memory of the frame before. */
static void pop_on_another_thread(void* s) {
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, try_pop, s) == 0 && pthread_join(thread, &refused) == 0);
}

static void test_a_second_pop_at_once_is_refused(void) {
  imkd_synchronizer* s = open_synchronizer(NULL);
  imkd_image image = images[0];
  image.has_timestamp = 1;
  image.timestamp_ns = 1000 * MS;
  CHECK(imkd_synchronizer_push_camera(s, 0, &image, 1000 * MS, pop_on_another_thread, s, NULL) == IMKD_OK);
  CHECK(pop(s, 1100, NULL) != NULL && refused == NULL && pop(s, 1101, NULL) == NULL && refused == s);
  CHECK(strncmp(imkd_synchronizer_error(s), "error[E0506]", 12) == 0);
  imkd_synchronizer_destroy(s);
}

/* ---- the caller's mistakes ---- */
static void test_callers_mistakes(void) {
  imkd_synchronizer* s = imkd_synchronizer_new();
  imkd_synchronizer_options options = {0, 0, 0, 0, NULL, 0, 0, 0, 0, 0};
  imkd_counts counts = {0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  const imkd_frames* popped = NULL;
  imkd_image image = images[0];
  imkd_sweep item = sweep;
  image.has_timestamp = item.has_timestamp = 1;
  CHECK(strcmp(imkd_synchronizer_error(s), "") == 0 && imkd_synchronizer_pop(s, 0, &popped, NULL) == 501);
  CHECK(imkd_synchronizer_push_camera(s, 0, &image, 0, NULL, NULL, NULL) == 501 && imkd_synchronizer_reset(s) == 501);
  CHECK(imkd_synchronizer_load(s, "no such.imkd", rig, NULL) == 401 &&
        imkd_synchronizer_load(s, NULL, rig, NULL) == 401);
  CHECK(strstr(imkd_synchronizer_error(s), "model") && imkd_synchronizer_load(s, "{", rig, NULL) == 101);
  CHECK(imkd_synchronizer_load(s, model, "{", NULL) == 211 && imkd_synchronizer_load(s, model, rig, &options) == 703);
  options.struct_size = sizeof options;
  options.tolerance = -1;
  CHECK(imkd_synchronizer_load(s, model, rig, &options) == 104);
  options.tolerance = 0;
  options.reference = "C9";
  CHECK(imkd_synchronizer_load(s, model, rig, &options) == 203);
  options.reference = NULL;
  options.reserved = 1;
  CHECK(imkd_synchronizer_load(s, model, rig, &options) == 703);
  CHECK(imkd_synchronizer_load(s, model, rig, NULL) == IMKD_OK &&
        imkd_synchronizer_load(s, "no such.imkd", rig, NULL) == 401);
  CHECK(imkd_synchronizer_push_camera(s, -1, &image, 0, NULL, NULL, NULL) == 203);
  CHECK(imkd_synchronizer_push_camera(s, 0, NULL, 0, NULL, NULL, NULL) == 703);
  image.has_timestamp = 0;
  CHECK(imkd_synchronizer_push_camera(s, 0, &image, 0, NULL, NULL, NULL) == 205);
  image.has_timestamp = 1;
  image.data = NULL;
  CHECK(imkd_synchronizer_push_camera(s, 0, &image, 0, NULL, NULL, NULL) == 202);
  image.struct_size = 3;
  CHECK(imkd_synchronizer_push_camera(s, 0, &image, 0, NULL, NULL, NULL) == 703);
  item.radar = 1;
  CHECK(imkd_synchronizer_push_radar(s, &item, 0, NULL, NULL, NULL) == 203 &&
        imkd_synchronizer_push_radar(s, NULL, 0, NULL, NULL, NULL) == 703);
  item.radar = 0;
  item.count = -1;
  CHECK(imkd_synchronizer_push_radar(s, &item, 0, NULL, NULL, NULL) == 202 &&
        imkd_synchronizer_pop(s, 0, NULL, NULL) == 703);
  CHECK(imkd_synchronizer_counts(s, &counts) == 703 && counts.kept == 7 && imkd_synchronizer_counts(s, NULL) == 703);
  CHECK(imkd_synchronizer_pop(NULL, 0, &popped, NULL) == IMKD_UNEXPECTED &&
        imkd_synchronizer_counts(NULL, &counts) == IMKD_UNEXPECTED);
  CHECK(imkd_synchronizer_load(NULL, model, rig, NULL) == IMKD_UNEXPECTED && imkd_synchronizer_error(NULL)[0] != 0);
  imkd_synchronizer_destroy(s);
  imkd_synchronizer_destroy(NULL);
}

int main(int argc, char** argv) {
  if (argc != 2) return fprintf(stderr, "usage: test_c_abi_live BUNDLE.imkd\n"), 2;
  model = argv[1];
  make_moment();
  imkd_detector* d = imkd_detector_new();
  const imkd_options options = {sizeof options, 1, "onnxruntime", "cpu", 0.01f, 0, 0, 0, NULL};
  const int code = imkd_detector_load(d, model, rig, &options);
  CHECK(code == IMKD_OK || code == 501);
  imkd_detector* detector = code == IMKD_OK ? d : NULL; /* NULL: without inference */
  test_items_out_of_order_become_a_frame(detector);
  test_a_stride_of_0_is_that_of_dense_pixels();
  test_a_camera_that_does_not_deliver_is_absent(detector);
  test_the_pose_of_a_frame_lies_between_its_neighbours();
  test_lent_memory_is_released_once();
  test_two_drivers_push_at_once();
  test_a_second_pop_at_once_is_refused();
  test_callers_mistakes();
  if (!detector) fprintf(stderr, "no engine: popped frames are NOT inferred: %s\n", imkd_detector_error(d));
  imkd_detector_destroy(d);
  return failures ? 1 : detector ? 0 : 77;
}
