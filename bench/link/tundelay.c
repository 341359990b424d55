/*
 * A wire with a propagation delay, for machines whose kernel has no netem: two TUN devices and, per
 * direction, a queue in which every packet waits until its time has come.
 *
 *   tundelay NAME_A NAME_B DELAY_US
 *
 * Creates both devices, prints "ready", and forwards until it is ended. The caller moves the devices
 * into their network namespaces and gives them addresses. Bandwidth is tc's job (tbf).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

/* Enough for 100 ms at 2.5 Gbit/s of full-size packets. */
enum { SLOTS = 4096, PACKET_MAX = 9216 };

struct packet {
  int64_t due_ns;
  ssize_t length;
  uint8_t bytes[PACKET_MAX];
};

struct direction {
  int from, to;
  int64_t delay_ns;
  struct packet *ring;
  uint64_t head, tail; /* head: packets read so far; tail: packets written so far */
  pthread_mutex_t lock;
  pthread_cond_t changed;
};

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void *read_packets(void *argument) {
  struct direction *d = argument;
  for (;;) {
    pthread_mutex_lock(&d->lock);
    while (d->head - d->tail == SLOTS) pthread_cond_wait(&d->changed, &d->lock);
    struct packet *packet = &d->ring[d->head % SLOTS];
    pthread_mutex_unlock(&d->lock);
    packet->length = read(d->from, packet->bytes, PACKET_MAX);
    if (packet->length < 0) {
      if (errno == EINTR || errno == EIO) continue;
      exit(1);
    }
    packet->due_ns = now_ns() + d->delay_ns;
    pthread_mutex_lock(&d->lock);
    d->head += 1;
    pthread_cond_signal(&d->changed);
    pthread_mutex_unlock(&d->lock);
  }
  return NULL;
}

static void *write_packets(void *argument) {
  struct direction *d = argument;
  prctl(PR_SET_TIMERSLACK, 1000UL);
  for (;;) {
    pthread_mutex_lock(&d->lock);
    while (d->head == d->tail) pthread_cond_wait(&d->changed, &d->lock);
    struct packet *packet = &d->ring[d->tail % SLOTS];
    pthread_mutex_unlock(&d->lock);
    struct timespec due = {packet->due_ns / 1000000000LL, packet->due_ns % 1000000000LL};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) == EINTR) continue;
    /* A packet that the receiver's queue has no room for is lost, as on any wire. */
    if (write(d->to, packet->bytes, packet->length) < 0 && errno == EBADF) exit(1);
    pthread_mutex_lock(&d->lock);
    d->tail += 1;
    pthread_cond_signal(&d->changed);
    pthread_mutex_unlock(&d->lock);
  }
  return NULL;
}

static int open_tun(const char *name) {
  struct ifreq request = {0};
  int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  request.ifr_flags = IFF_TUN | IFF_NO_PI;
  if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0) {
    fprintf(stderr, "tundelay: %s: %s\n", name, strerror(errno));
    exit(1);
  }
  return fd;
}

static void start(struct direction *d) {
  pthread_t thread;
  d->ring = malloc(SLOTS * sizeof *d->ring);
  if (d->ring == NULL) exit(1);
  pthread_mutex_init(&d->lock, NULL);
  pthread_cond_init(&d->changed, NULL);
  pthread_create(&thread, NULL, read_packets, d);
  pthread_create(&thread, NULL, write_packets, d);
}

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: tundelay NAME_A NAME_B DELAY_US\n");
    return 2;
  }
  prctl(PR_SET_PDEATHSIG, 9);
  int a = open_tun(argv[1]), b = open_tun(argv[2]);
  int64_t delay_ns = atoll(argv[3]) * 1000;
  struct direction forward = {.from = a, .to = b, .delay_ns = delay_ns};
  struct direction backward = {.from = b, .to = a, .delay_ns = delay_ns};
  start(&forward);
  start(&backward);
  puts("ready");
  fflush(stdout);
  pause();
  return 0;
}
