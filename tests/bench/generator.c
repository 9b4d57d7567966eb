/*
 * The load generator: a closed loop over many connections, one epoll, one thread.
 *
 *     generator PORT CONNECTIONS SIZE SECONDS echo|stream|churn spin|sleep SOURCES
 *
 * Every connection sends one message of SIZE bytes, waits for the whole echo, compares it byte for byte, and sends the
 * next, so at most CONNECTIONS messages are under way. In `stream` a message is sent and its echo read at the same
 * time, a chunk of each in turn, so that neither direction waits for the other. In `churn` a message is a connection of
 * its own: connect, echo, half-close, and wait for the server's end. A phase is over after as many messages as the
 * caller said or after SECONDS seconds, whichever comes first, once nothing is under way.
 *
 * Of messages of BULK bytes or more in `echo`, only one read in SAMPLE is compared; the kernel discards and counts the
 * bytes of the others (tcp(7), MSG_TRUNC). Otherwise this process would be slower than the servers.
 *
 * `spin`: never sleep while a phase runs. Otherwise nearly every send of the server wakes this process, which in a
 * virtual machine was a fifth to a third of the server's CPU time, now more and now less: noise, and not the server's
 * own. `sleep` is for a machine where the two share a CPU.
 *
 * The caller drives it by lines, so that it can read the server's CPU clock while nothing moves:
 *
 *     generator: "ready"                            all connected (echo, stream)
 *     caller:    "go N"                             run one phase of at most N messages
 *     generator: "done MESSAGES NS P50 P99"         the phase is over, every connection is idle
 *     caller:    end of input                       leave
 *
 * NS is how long the phase took, P50 and P99 are how long a message took from its first byte sent to the last received
 * (in `churn`, from connect to the server's end), all in nanoseconds.
 *
 * A wrong byte, a closed connection or any failed call is one sentence on standard error and exit status 1. A phase
 * that does not finish within SECONDS + 10 is ended by SIGALRM.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PERIOD = 65521, CHUNK = 256 * 1024, BULK = 64 * 1024, SAMPLE = 16, BATCH = 32, GRACE = 10, FINE = 32, BUCKETS = 64 * FINE };

struct client {
    int fd;
    unsigned index;
    uint32_t interest; /* what epoll watches on fd now */
    size_t sent, received;
    size_t start; /* where in the pattern the message begins: elsewhere for every message */
    uint64_t began;
};

static struct sockaddr_in server = {.sin_family = AF_INET};
static unsigned connections, sources;
static size_t size;
static int churn, stream, spin, epoll;
static unsigned reads;
static char *pattern; /* PERIOD random bytes, again and again; a prime, so that a lost power of two shows */
static char *chunk;
static struct client *clients;
static uint64_t started, finished, quota, deadline;
static uint64_t latencies[BUCKETS]; /* a count for each bucket; FINE buckets for each power of two, in ns */

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "generator: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void count_latency(uint64_t ns)
{
    unsigned power = 63u - (unsigned)__builtin_clzll(ns | FINE);
    latencies[power * FINE + (ns >> (power - 5)) % FINE]++;
}

/* The latency in ns that this share of the messages did not exceed: the upper end of a bucket, at most 3 % too much. */
static uint64_t quantile(double share)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        sum += latencies[i];
        if (sum && (double)sum >= share * (double)finished)
            return (uint64_t)(FINE + i % FINE + 1) << (i / FINE - 5);
    }
    return 0;
}

/* The clients come from SOURCES loopback addresses: churn would run out of the ports of one (TIME_WAIT). */
static void open_socket(struct client *client, int flags)
{
    int yes = 1;
    struct sockaddr_in source = {.sin_family = AF_INET};
    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + client->index % sources);
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    if (client->fd < 0)
        fail("socket");
    if (setsockopt(client->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes) ||
        setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes))
        fail("setsockopt");
    if (bind(client->fd, (struct sockaddr *)&source, sizeof source))
        fail("bind to a loopback address");
    if (connect(client->fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS)
        fail("connect");
}

static void watch(struct client *client, int operation, uint32_t interest)
{
    struct epoll_event event = {.events = interest, .data.ptr = client};
    client->interest = interest;
    if (epoll_ctl(epoll, operation, client->fd, &event))
        fail("epoll_ctl");
}

static const char *expected(const struct client *client, size_t at)
{
    return pattern + (client->start + at) % PERIOD;
}

static size_t at_most_a_chunk(size_t length)
{
    return length < CHUNK ? length : CHUNK;
}

static void send_more(struct client *client)
{
    while (client->sent < size) {
        size_t length = at_most_a_chunk(size - client->sent);
        ssize_t n = send(client->fd, expected(client, client->sent), length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0)
            fail("send");
        client->sent += (size_t)n;
        if (stream)
            break;
    }
    uint32_t interest = client->sent < size ? EPOLLIN | EPOLLOUT : EPOLLIN;
    if (interest != client->interest)
        watch(client, EPOLL_CTL_MOD, interest);
}

static void begin(struct client *client, uint64_t at)
{
    client->start = (client->index * 509u + started) % PERIOD;
    client->sent = client->received = 0;
    client->began = at;
    started++;
    if (churn) {
        open_socket(client, SOCK_NONBLOCK);
        watch(client, EPOLL_CTL_ADD, EPOLLOUT);
    } else {
        send_more(client);
    }
}

static void finish(struct client *client)
{
    uint64_t at = now();
    finished++;
    count_latency(at - client->began);
    if (started < quota && at < deadline)
        begin(client, at);
}

static void receive(struct client *client)
{
    int discards = !stream && size >= BULK && ++reads % SAMPLE;
    ssize_t n = recv(client->fd, chunk, CHUNK, MSG_DONTWAIT | (discards ? MSG_TRUNC : 0));
    if (n < 0 && errno == EAGAIN)
        return;
    if (n < 0)
        fail("recv");
    if (n == 0 && churn && client->received == size) {
        close(client->fd);
        finish(client);
        return;
    }
    if (n == 0) {
        fprintf(stderr, "generator: the server closed a connection after %zu of %zu bytes\n", client->received, size);
        exit(1);
    }
    if ((size_t)n > client->sent - client->received ||
        (!discards && memcmp(chunk, expected(client, client->received), (size_t)n))) {
        fprintf(stderr, "generator: the echo differs from what was sent, within bytes %zu to %zu of a message\n",
                client->received, client->received + (size_t)n);
        exit(1);
    }
    client->received += (size_t)n;
    if (client->received < size)
        return;
    if (!churn)
        finish(client);
    else if (shutdown(client->fd, SHUT_WR))
        fail("shutdown");
}

static void run_phase(uint64_t messages, unsigned seconds)
{
    struct epoll_event events[256];
    uint64_t began = now();
    alarm(seconds + GRACE);
    memset(latencies, 0, sizeof latencies);
    started = finished = 0;
    quota = messages;
    deadline = began + seconds * (uint64_t)1000000000;
    for (unsigned i = 0; i < connections && started < quota; i++)
        begin(&clients[i], now());
    while (finished < started) {
        int ready = epoll_wait(epoll, events, 256, spin ? 0 : -1);
        if (ready < 0 && errno != EINTR)
            fail("epoll_wait");
        for (int i = 0; i < ready; i++) {
            struct client *client = events[i].data.ptr;
            if (events[i].events & EPOLLOUT)
                send_more(client);
            if (events[i].events & ~(uint32_t)EPOLLOUT)
                receive(client);
        }
    }
    alarm(0);
    printf("done %llu %llu %llu %llu\n", (unsigned long long)finished, (unsigned long long)(now() - began),
           (unsigned long long)quantile(0.5), (unsigned long long)quantile(0.99));
}

/* Connect, and now and then wait for an echo, which shows that the server has accepted what came before: if the queue of
 * the listening socket overflowed, the kernel would drop the SYN, and repeat it after a second. */
static void connect_all(void)
{
    for (unsigned i = 0; i < connections; i++) {
        char byte = 'x';
        open_socket(&clients[i], 0);
        if (i % BATCH == 0 && (send(clients[i].fd, &byte, 1, MSG_NOSIGNAL) != 1 || recv(clients[i].fd, &byte, 1, 0) != 1))
            fail("the first byte of a connection");
        watch(&clients[i], EPOLL_CTL_ADD, EPOLLIN);
    }
}

int main(int argc, char **argv)
{
    if (argc != 8) {
        fprintf(stderr, "usage: generator PORT CONNECTIONS SIZE SECONDS echo|stream|churn spin|sleep SOURCES\n");
        return 64;
    }
    server.sin_port = htons((uint16_t)atoi(argv[1]));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connections = (unsigned)atoi(argv[2]);
    size = (size_t)atol(argv[3]);
    unsigned seconds = (unsigned)atoi(argv[4]);
    churn = !strcmp(argv[5], "churn");
    stream = !strcmp(argv[5], "stream");
    spin = !strcmp(argv[6], "spin");
    sources = (unsigned)atoi(argv[7]);

    setvbuf(stdout, NULL, _IOLBF, 0);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    pattern = malloc(PERIOD + CHUNK);
    chunk = malloc(CHUNK);
    clients = calloc(connections, sizeof *clients);
    if (epoll < 0 || !pattern || !chunk || !clients)
        fail("set-up");
    for (size_t i = 0; i < PERIOD + CHUNK; i++)
        pattern[i] = i < PERIOD ? (char)(random() >> 7) : pattern[i - PERIOD];
    for (unsigned i = 0; i < connections; i++)
        clients[i].index = i;
    alarm(3 * GRACE);
    if (!churn)
        connect_all();
    alarm(0);
    puts("ready");

    unsigned long long messages;
    while (scanf(" go %llu", &messages) == 1)
        run_phase(messages, seconds);
    return 0;
}
