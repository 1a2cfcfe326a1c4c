/* Monitor and watchdog in the C ABI, from C99: test_c_abi_health BUNDLE.imkd, a bundle for six cameras and a 3D radar
 * whose max_age is 0.6 s. */
#include <pthread.h>

#include "moment.h"

static const char* model;

/* ---- monitor ---- */
static int state_at(imkd_monitor* m, int now, int camera) { /* of the camera; of the radar if negative */
  imkd_health health;
  memset(&health, 0, sizeof health);
  health.struct_size = sizeof health;
  CHECK(imkd_monitor_check(m, now * MS, &health) == IMKD_OK && health.camera_count == kCameras &&
        health.radar_count == 1);
  return camera < 0 ? health.radar_states[0] : health.camera_states[camera];
}

static void observe(imkd_monitor* m, int camera, int now, int contents) {
  imkd_image image = images[camera];
  image.has_timestamp = 1;
  image.timestamp_ns = now * MS;
  pixels[camera][0] = (uint8_t)contents;
  CHECK(imkd_monitor_observe_camera(m, camera, &image, now * MS) == IMKD_OK);
}

static void test_a_sensor_goes_through_its_states(void) {
  imkd_monitor* m = imkd_monitor_new();
  imkd_health health;
  imkd_image image = images[1];
  imkd_sweep item = sweep;
  CHECK(imkd_monitor_load(m, model, rig, NULL) == IMKD_OK && state_at(m, 1000, 0) == IMKD_SENSOR_MISSING);
  observe(m, 0, 1000, 1);
  CHECK(state_at(m, 1300, 0) == IMKD_SENSOR_OK && state_at(m, 1301, 0) == IMKD_SENSOR_LATE &&
        state_at(m, 1601, 0) == IMKD_SENSOR_STALE);
  CHECK(state_at(m, 3000, 0) == IMKD_SENSOR_STALE && state_at(m, 3001, 0) == IMKD_SENSOR_LOST &&
        state_at(m, 3001, 1) == IMKD_SENSOR_LOST);
  for (int i = 0; i < 3; ++i) {
    observe(m, 0, 4000 + i, 7);
    CHECK(state_at(m, 4000 + i, 0) == (i < 2 ? IMKD_SENSOR_OK : IMKD_SENSOR_FROZEN));
  }
  observe(m, 0, 4003, 8);
  CHECK(state_at(m, 4003, 0) == IMKD_SENSOR_OK);
  image.has_timestamp = 1;
  image.timestamp_ns = 4003 * MS;
  image.width = kWidth - 1;
  CHECK(imkd_monitor_observe_camera(m, 1, &image, 4003 * MS) == IMKD_OK && state_at(m, 4003, 1) == IMKD_SENSOR_INVALID);
  image.data = NULL;
  image.timestamp_ns = 4004 * MS;
  CHECK(imkd_monitor_observe_camera(m, 1, &image, 4004 * MS) == IMKD_OK && state_at(m, 4004, 1) == IMKD_SENSOR_INVALID);
  item.has_timestamp = 1;
  item.timestamp_ns = 4004 * MS;
  CHECK(imkd_monitor_observe_radar(m, &item, 4004 * MS) == IMKD_OK && state_at(m, 4004, -1) == IMKD_SENSOR_OK);
  health.struct_size = sizeof health;
  CHECK(imkd_monitor_check(m, 4004 * MS, &health) == IMKD_OK && health.mode == IMKD_PARTIAL);
  CHECK(imkd_monitor_check(m, 4500 * MS, &health) == IMKD_OK &&
        health.mode == IMKD_PARTIAL); /* camera 0 and the radar are late */
  CHECK(imkd_monitor_check(m, 4604 * MS, &health) == IMKD_OK && health.mode == IMKD_RADAR_ONLY);
  CHECK(imkd_monitor_check(m, 4605 * MS, &health) == IMKD_OK && health.mode == IMKD_BLIND);
  CHECK(imkd_monitor_reset(m) == IMKD_OK && state_at(m, 9000, 0) == IMKD_SENSOR_MISSING);
  CHECK(strcmp(imkd_detector_name(NULL, IMKD_SENSOR_STATES, IMKD_SENSOR_LOST), "lost") == 0);
  imkd_monitor_destroy(m);
}

/* ---- watchdog ---- */
struct dog {
  int64_t now;
  int reports;
  double seconds;
  imkd_watchdog* destroyed_by_callback;
  pthread_mutex_t mutex;
  pthread_cond_t wake;
};

static int64_t clock_of(void* user) { return ((struct dog*)user)->now; }

static void missed(double seconds, void* user) {
  struct dog* dog = user;
  pthread_mutex_lock(&dog->mutex);
  ++dog->reports;
  dog->seconds = seconds;
  imkd_watchdog_destroy(dog->destroyed_by_callback);
  pthread_cond_signal(&dog->wake);
  pthread_mutex_unlock(&dog->mutex);
}

static void test_a_miss_is_reported_once_until_the_next_beat(void) {
  struct dog dog = {0, 0, 0, NULL, PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER};
  imkd_watchdog_options options = {sizeof options, 1, 0.1, missed, clock_of, &dog};
  imkd_watchdog* w = imkd_watchdog_new();
  uint32_t overdue = 7;
  int64_t misses = 7;
  CHECK(imkd_watchdog_start(w, &options) == IMKD_OK);
  dog.now = 100 * MS;
  CHECK(imkd_watchdog_poll(w) == IMKD_OK && dog.reports == 0 && imkd_watchdog_state(w, &overdue, &misses) == IMKD_OK);
  CHECK(overdue == 0 && misses == 0);
  dog.now = 101 * MS;
  CHECK(imkd_watchdog_poll(w) == IMKD_OK && imkd_watchdog_poll(w) == IMKD_OK && dog.reports == 1);
  CHECK(dog.seconds > 0.10099 && dog.seconds < 0.10101);
  CHECK(imkd_watchdog_state(w, &overdue, &misses) == IMKD_OK && overdue == 1 && misses == 1);
  CHECK(imkd_watchdog_beat(w) == IMKD_OK && imkd_watchdog_state(w, &overdue, NULL) == IMKD_OK && overdue == 0);
  dog.now = 300 * MS;
  CHECK(imkd_watchdog_poll(w) == IMKD_OK && dog.reports == 2 && imkd_watchdog_state(w, NULL, &misses) == IMKD_OK &&
        misses == 2);
  imkd_watchdog_destroy(w);
}

static void test_the_timer_reports_by_itself_and_its_callback_may_destroy_the_watchdog(void) {
  struct dog dog = {0, 0, 0, imkd_watchdog_new(), PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER};
  imkd_watchdog_options options = {sizeof options, 0, 0.001, missed, NULL, &dog};
  pthread_mutex_lock(&dog.mutex);
  CHECK(imkd_watchdog_start(dog.destroyed_by_callback, &options) == IMKD_OK);
  while (dog.reports == 0) pthread_cond_wait(&dog.wake, &dog.mutex);
  pthread_mutex_unlock(&dog.mutex);
  CHECK(dog.reports == 1 && dog.seconds > 0.001);
}

/* ---- the caller's mistakes ---- */
static void test_callers_mistakes(void) {
  imkd_monitor* m = imkd_monitor_new();
  imkd_watchdog* w = imkd_watchdog_new();
  imkd_monitor_options options = {sizeof options, 0, 0.6}; /* not above max_age */
  imkd_watchdog_options deadline = {sizeof deadline, 1, 0, NULL, NULL, NULL};
  imkd_health health = {0, 7, 0, 0, NULL, NULL};
  imkd_image image = images[0];
  CHECK(imkd_monitor_check(m, 0, &health) == 703);
  health.struct_size = sizeof health;
  CHECK(imkd_monitor_check(m, 0, &health) == 501 && health.mode == 7 &&
        imkd_monitor_load(m, model, rig, &options) == 104);
  CHECK(strncmp(imkd_monitor_error(m), "error[E0104]", 12) == 0 && imkd_monitor_load(m, model, rig, NULL) == IMKD_OK);
  CHECK(imkd_monitor_observe_camera(m, 0, &image, 0) == 205 && imkd_monitor_observe_radar(m, &sweep, 0) == 205);
  image.has_timestamp = 1;
  CHECK(imkd_monitor_observe_camera(m, kCameras, &image, 0) == 203 &&
        imkd_monitor_observe_camera(m, 0, NULL, 0) == 703);
  CHECK(imkd_monitor_check(NULL, 0, &health) == IMKD_UNEXPECTED && imkd_monitor_error(NULL)[0] != 0);
  CHECK(imkd_watchdog_beat(w) == 501 && imkd_watchdog_poll(w) == 501 && imkd_watchdog_state(w, NULL, NULL) == 501);
  CHECK(imkd_watchdog_start(w, NULL) == 703 && imkd_watchdog_start(w, &deadline) == 104 &&
        imkd_watchdog_beat(w) == 501);
  CHECK(strncmp(imkd_watchdog_error(w), "error[E0501]", 12) == 0 && imkd_watchdog_beat(NULL) == IMKD_UNEXPECTED);
  imkd_monitor_destroy(m);
  imkd_monitor_destroy(NULL);
  imkd_watchdog_destroy(w);
  imkd_watchdog_destroy(NULL);
}

static void test_the_text_of_one_kind_of_handle_outlives_a_question_to_another(void) {
  imkd_monitor* m = imkd_monitor_new();
  imkd_tracker* t = imkd_tracker_new();
  CHECK(imkd_monitor_load(m, model, NULL, NULL) != IMKD_OK && imkd_tracker_load(t, NULL, NULL) != IMKD_OK);
  const char* text = imkd_monitor_error(m);
  char copy[1000];
  snprintf(copy, sizeof copy, "%s", text);
  CHECK(*text && strcmp(imkd_tracker_error(t), copy) != 0 && strcmp(text, copy) == 0);
  imkd_tracker_destroy(t);
  imkd_monitor_destroy(m);
}

int main(int argc, char** argv) {
  if (argc != 2) return fprintf(stderr, "usage: test_c_abi_health BUNDLE.imkd\n"), 2;
  model = argv[1];
  make_moment();
  test_a_sensor_goes_through_its_states();
  test_a_miss_is_reported_once_until_the_next_beat();
  test_the_timer_reports_by_itself_and_its_callback_may_destroy_the_watchdog();
  test_callers_mistakes();
  test_the_text_of_one_kind_of_handle_outlives_a_question_to_another();
  return failures ? 1 : 0;
}
