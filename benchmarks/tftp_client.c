/* Many TFTP readers in one thread, cheap enough that the server is what is measured; benchmarks/tftp.py builds it.

   tftp_client HOST PORT NAME FILE READERS TRANSFERS BLKSIZE WINDOW LOSS SEED

   Reads NAME over and over, TRANSFERS times in all, READERS at once, each reader from a loopback address of its own,
   and compares every byte with FILE. LOSS of a million DATA packets are dropped on arrival, by a seeded generator.
   Prints the seconds it took, and how many requests and ACKs a reader had to send again after SILENCE. */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SILENCE 5.0 /* seconds after which a reader says its last word again; what tftp-hpa takes */

struct reader {
    int fd, connected, gap_told;
    uint64_t expected, acked; /* blocks, counted from 1 and never rolled over */
    uint64_t rng;
    double heard;
    unsigned char last[600];
    size_t last_size;
};

static struct sockaddr_in server;
static const char *name;
static const unsigned char *file;
static size_t file_size;
static int blksize, window, epoll_fd;
static uint32_t loss;
static long left_to_start, left_to_finish, said_again;

static void die(const char *what) { perror(what); exit(1); }

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static int is_lost(struct reader *r) {
    r->rng ^= r->rng << 13; r->rng ^= r->rng >> 7; r->rng ^= r->rng << 17;
    return loss && (r->rng >> 11) % 1000000 < loss;
}

static void say(struct reader *r) {
    if (r->connected) { if (send(r->fd, r->last, r->last_size, 0) < 0) die("send"); return; }
    if (sendto(r->fd, r->last, r->last_size, 0, (struct sockaddr *)&server, sizeof server) < 0) die("sendto");
}

static void ask(struct reader *r, int index) {
    struct sockaddr_in self = {.sin_family = AF_INET};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = r};
    self.sin_addr.s_addr = htonl(0x7f010001 + index);
    left_to_start--;
    if ((r->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0)) < 0) die("socket");
    if (bind(r->fd, (struct sockaddr *)&self, sizeof self)) die("bind");
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, r->fd, &event)) die("epoll_ctl");
    r->connected = r->gap_told = 0;
    r->expected = 1;
    r->acked = 0;
    r->heard = now();
    char *at = (char *)r->last;
    at += sprintf(at, "%c%c%s%coctet%cblksize%c%d%ctsize%c0", 0, 1, name, 0, 0, 0, blksize, 0, 0) + 1;
    if (window > 1) at += sprintf(at, "windowsize%c%d", 0, window) + 1;
    r->last_size = at - (char *)r->last;
    say(r);
}

static void acknowledge(struct reader *r, uint64_t block) {
    r->last[0] = 0; r->last[1] = 4; r->last[2] = block >> 8; r->last[3] = block;
    r->last_size = 4;
    say(r);
}

static void data(struct reader *r, int index, const unsigned char *packet, size_t size) {
    if (is_lost(r)) return;
    int16_t ahead = (int16_t)(uint16_t)((packet[2] << 8 | packet[3]) - r->expected);
    if (ahead < 0) { if (window == 1) acknowledge(r, r->expected - 1); return; }
    if (ahead > 0) { if (!r->gap_told) { r->gap_told = 1; r->acked = r->expected - 1; acknowledge(r, r->acked); } return; }
    size_t offset = (r->expected - 1) * blksize, length = size - 4;
    if (offset + length > file_size || memcmp(file + offset, packet + 4, length)) {
        fprintf(stderr, "wrong bytes in block %lu\n", (unsigned long)r->expected); exit(1);
    }
    int is_last = length < (size_t)blksize;
    if (is_last && offset + length != file_size) { fprintf(stderr, "cut short\n"); exit(1); }
    r->gap_told = 0;
    r->expected++;
    if (is_last || r->expected - 1 - r->acked >= (uint64_t)window) {
        r->acked = r->expected - 1;
        acknowledge(r, r->acked);
    }
    if (!is_last) return;
    close(r->fd);
    r->fd = -1;
    left_to_finish--;
    if (left_to_start > 0) ask(r, index);
}

static void hear(struct reader *r, int index) {
    static unsigned char packet[66000];
    struct sockaddr_in from;
    socklen_t length = sizeof from;
    /* A window at most, then the others have their turn. */
    for (int i = 0; i < window && r->fd >= 0; i++) {
        ssize_t size = r->connected ? recv(r->fd, packet, sizeof packet, 0)
                                    : recvfrom(r->fd, packet, sizeof packet, 0, (struct sockaddr *)&from, &length);
        if (size < 0) { if (errno == EAGAIN) return; die("recv"); }
        if (!r->connected) {
            if (connect(r->fd, (struct sockaddr *)&from, sizeof from)) die("connect");
            r->connected = 1;
        }
        r->heard = now();
        if (packet[1] == 3) data(r, index, packet, size);
        else if (packet[1] == 6) { if (r->expected == 1) acknowledge(r, 0); }
        else { fprintf(stderr, "ERROR %d: %s\n", packet[3], packet + 4); exit(1); }
    }
}

int main(int argc, char **argv) {
    if (argc != 11) { fprintf(stderr, "HOST PORT NAME FILE READERS TRANSFERS BLKSIZE WINDOW LOSS SEED\n"); return 2; }
    struct stat status;
    int readers = atoi(argv[5]), fd = open(argv[4], O_RDONLY);
    server.sin_family = AF_INET;
    server.sin_port = htons(atoi(argv[2]));
    inet_pton(AF_INET, argv[1], &server.sin_addr);
    name = argv[3];
    if (fd < 0 || fstat(fd, &status)) die(argv[4]);
    file_size = status.st_size;
    file = mmap(NULL, file_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    left_to_start = left_to_finish = atol(argv[6]);
    blksize = atoi(argv[7]);
    window = atoi(argv[8]);
    loss = atol(argv[9]);
    epoll_fd = epoll_create1(0);
    struct reader *all = calloc(readers, sizeof *all);
    double began = now();
    for (int i = 0; i < readers; i++) {
        all[i].fd = -1;
        all[i].rng = 0x9e3779b97f4a7c15u * (atol(argv[10]) + 1) + i * 0xbf58476d1ce4e5b9u;
        if (left_to_start > 0) ask(&all[i], i);
    }
    double looked = began;
    struct epoll_event events[64];
    while (left_to_finish > 0) {
        int count = epoll_wait(epoll_fd, events, 64, 100);
        for (int i = 0; i < count; i++) {
            struct reader *r = events[i].data.ptr;
            hear(r, r - all);
        }
        double time = now();
        if (time - looked < 0.1) continue;
        looked = time;
        for (int i = 0; i < readers; i++)
            if (all[i].fd >= 0 && time - all[i].heard > SILENCE) { all[i].heard = time; said_again++; say(&all[i]); }
    }
    printf("%.6f %ld\n", now() - began, said_again);
    return 0;
}
