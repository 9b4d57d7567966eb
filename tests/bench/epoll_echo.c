/*
 * The yardstick: what an echo costs when nothing but the kernel is in the way. One thread, one epoll, one recv and one
 * send for each readiness, of at most CHUNK_SIZE bytes, its argument. It prints its port, serves 127.0.0.1 until it is
 * killed, and handles a short send by waiting for room without reading on (lock-step), with one chunk of memory for
 * each client that is behind.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CHUNK_MAX = 256 * 1024 };

struct client {
    int fd;
    size_t pending, offset;
    char *held; /* what a short send left, or NULL */
};

static _Alignas(4096) char chunk[CHUNK_MAX]; /* see Buffer in echod/worker/relay.py */
static size_t chunk_size;
static int epoll;

static _Noreturn void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void watch(struct client *client, int operation, unsigned interest)
{
    struct epoll_event event = {.events = interest, .data.ptr = client};
    if (epoll_ctl(epoll, operation, client->fd, &event))
        fail("epoll_ctl");
}

static void drop(struct client *client)
{
    close(client->fd);
    free(client->held);
    free(client);
}

static void echo(struct client *client)
{
    ssize_t got = recv(client->fd, chunk, chunk_size, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        drop(client);
        return;
    }
    ssize_t sent = send(client->fd, chunk, (size_t)got, MSG_NOSIGNAL);
    if (sent == got)
        return;
    if (sent < 0 && errno != EAGAIN) {
        drop(client);
        return;
    }
    client->offset = 0;
    client->pending = (size_t)(got - (sent > 0 ? sent : 0));
    client->held = malloc(client->pending);
    if (!client->held)
        fail("malloc");
    memcpy(client->held, chunk + (got - (ssize_t)client->pending), client->pending);
    watch(client, EPOLL_CTL_MOD, EPOLLOUT);
}

static void flush(struct client *client)
{
    ssize_t sent = send(client->fd, client->held + client->offset, client->pending, MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN)
        return;
    if (sent < 0) {
        drop(client);
        return;
    }
    client->offset += (size_t)sent;
    client->pending -= (size_t)sent;
    if (client->pending)
        return;
    free(client->held);
    client->held = NULL;
    watch(client, EPOLL_CTL_MOD, EPOLLIN);
}

static void accept_all(int listener)
{
    int yes = 1, fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct client *client = calloc(1, sizeof *client);
        if (!client)
            fail("calloc");
        client->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        watch(client, EPOLL_CTL_ADD, EPOLLIN);
    }
}

int main(int argc, char **argv)
{
    chunk_size = argc == 2 ? (size_t)atol(argv[1]) : 0;
    if (!chunk_size || chunk_size > CHUNK_MAX) {
        fprintf(stderr, "usage: epoll_echo CHUNK_SIZE\n");
        return 64;
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    struct epoll_event events[256];
    struct client acceptor = {.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
    if (acceptor.fd < 0 || bind(acceptor.fd, (struct sockaddr *)&address, sizeof address) ||
        listen(acceptor.fd, 1024) ||
        getsockname(acceptor.fd, (struct sockaddr *)&address, &length))
        fail("listen");
    epoll = epoll_create1(EPOLL_CLOEXEC);
    watch(&acceptor, EPOLL_CTL_ADD, EPOLLIN);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int ready = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            struct client *client = events[i].data.ptr;
            if (client == &acceptor)
                accept_all(acceptor.fd);
            else if (client->held)
                flush(client);
            else
                echo(client);
        }
    }
}
