/*
 * The load generator: a closed loop over many connections, one epoll, one thread.
 *
 *     generator PORT CONNECTIONS SIZE SECONDS echo|churn spin|sleep
 *
 * Every connection sends one message of SIZE bytes, waits for the whole echo, compares it byte for byte, and sends the
 * next, so at most CONNECTIONS messages are under way. In `churn` a message is a connection of its own: connect, echo,
 * half-close, and wait for the server's end. A phase is over after as many messages as the caller said or after SECONDS
 * seconds, whichever comes first, once nothing is under way.
 *
 * `spin`: never sleep while a phase runs. Otherwise nearly every send of the server wakes this process, which in a
 * virtual machine was a fifth to a third of the server's CPU time, now more and now less: noise, and not the server's
 * own. `sleep` is for a machine where the two share a CPU.
 *
 * The caller drives it by lines, so that it can read the server's CPU clock while nothing moves:
 *
 *     generator: "ready"                          all connected (echo)
 *     caller:    "go N"                           run one phase of at most N messages
 *     generator: "done MESSAGES"                  the phase is over, every connection is idle
 *     caller:    end of input                     leave
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

enum { SPAN = 4096, CHUNK = 256 * 1024, GRACE = 10 };

struct client {
    int fd;
    unsigned index;
    uint32_t interest;   /* what epoll watches on fd now */
    size_t sent, received;
    const char *message; /* a window of `pattern`, another one for every message */
};

static struct sockaddr_in server = {.sin_family = AF_INET};
static unsigned connections;
static size_t size;
static int churn, spin, epoll;
static char *pattern, *chunk;
static struct client *clients;
static uint64_t started, finished, quota, deadline;

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

/* Each client comes from a loopback address of its own: churn would run out of one address's ports (TIME_WAIT). */
static void open_socket(struct client *client, int flags)
{
    int yes = 1;
    struct sockaddr_in source = {.sin_family = AF_INET};
    source.sin_addr.s_addr = htonl(0x7f010001u + client->index);
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

static void send_rest(struct client *client)
{
    while (client->sent < size) {
        ssize_t n = send(client->fd, client->message + client->sent, size - client->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0)
            fail("send");
        client->sent += (size_t)n;
    }
    uint32_t interest = client->sent < size ? EPOLLIN | EPOLLOUT : EPOLLIN;
    if (interest != client->interest)
        watch(client, EPOLL_CTL_MOD, interest);
}

static void begin(struct client *client)
{
    client->message = pattern + (client->index * 509 + started) % SPAN;
    client->sent = client->received = 0;
    started++;
    if (churn) {
        open_socket(client, SOCK_NONBLOCK);
        watch(client, EPOLL_CTL_ADD, EPOLLOUT);
    } else {
        send_rest(client);
    }
}

static void finish(struct client *client)
{
    finished++;
    if (started < quota && now() < deadline)
        begin(client);
}

static void receive(struct client *client)
{
    ssize_t n = recv(client->fd, chunk, CHUNK, MSG_DONTWAIT);
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
    if ((size_t)n > client->sent - client->received || memcmp(chunk, client->message + client->received, (size_t)n)) {
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
    alarm(seconds + GRACE);
    started = finished = 0;
    quota = messages;
    deadline = now() + seconds * (uint64_t)1000000000;
    for (unsigned i = 0; i < connections && started < quota; i++)
        begin(&clients[i]);
    while (finished < started) {
        int ready = epoll_wait(epoll, events, 256, spin ? 0 : -1);
        if (ready < 0 && errno != EINTR)
            fail("epoll_wait");
        for (int i = 0; i < ready; i++) {
            struct client *client = events[i].data.ptr;
            if (events[i].events & EPOLLOUT)
                send_rest(client);
            if (events[i].events & ~(uint32_t)EPOLLOUT)
                receive(client);
        }
    }
    alarm(0);
    printf("done %llu\n", (unsigned long long)finished);
}

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "usage: generator PORT CONNECTIONS SIZE SECONDS echo|churn spin|sleep\n");
        return 64;
    }
    server.sin_port = htons((uint16_t)atoi(argv[1]));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connections = (unsigned)atoi(argv[2]);
    size = (size_t)atol(argv[3]);
    unsigned seconds = (unsigned)atoi(argv[4]);
    churn = !strcmp(argv[5], "churn");
    spin = !strcmp(argv[6], "spin");

    setvbuf(stdout, NULL, _IOLBF, 0);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    pattern = malloc(size + SPAN);
    chunk = malloc(CHUNK);
    clients = calloc(connections, sizeof *clients);
    if (epoll < 0 || !pattern || !chunk || !clients)
        fail("set-up");
    for (size_t i = 0; i < size + SPAN; i++)
        pattern[i] = (char)(random() >> 7);
    alarm(GRACE);
    for (unsigned i = 0; i < connections; i++) {
        clients[i].index = i;
        if (!churn) {
            open_socket(&clients[i], 0);
            watch(&clients[i], EPOLL_CTL_ADD, EPOLLIN);
        }
    }
    alarm(0);
    puts("ready");

    unsigned long long messages;
    while (scanf(" go %llu", &messages) == 1)
        run_phase(messages, seconds);
    return 0;
}
