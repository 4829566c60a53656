/*
 * net receive ADDRESS PORT BYTES      connects, takes so many bytes
 * net send ADDRESS PORT BYTES         connects, sends so many, waits for the other side's end
 * net echo ADDRESS PORT COUNT         connects, sends a byte and waits for it, COUNT times
 * net serve PORT BODY_BYTES           an HTTP server in one process; keeps connections if it is asked to
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUFFER (256 << 10)
#define CONNECTIONS 256
#define REQUEST 4096

static char buffer[BUFFER];

static void demand(int holds, const char *what)
{
    if (holds)
        return;
    perror(what);
    exit(1);
}

static int connected(const char *address, const char *port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    int one = 1, s = socket(AF_INET, SOCK_STREAM, 0);
    demand(s >= 0 && inet_aton(address, &to.sin_addr), "socket");
    demand(connect(s, (struct sockaddr *)&to, sizeof to) == 0, "connect");
    setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return s;
}

/* Until `bytes` have come or the other side has ended; answers how many did. */
static long receive(int s, long bytes)
{
    long done = 0;
    while (done < bytes) {
        ssize_t got = read(s, buffer, bytes - done < BUFFER ? bytes - done : BUFFER);
        demand(got >= 0, "read");
        if (got == 0)
            break;
        done += got;
    }
    return done;
}

static void send_all(int s, const char *from, long bytes)
{
    while (bytes > 0) {
        ssize_t sent = write(s, from, bytes < BUFFER ? bytes : BUFFER);
        demand(sent > 0, "write");
        bytes -= sent;
    }
}

struct connection {
    char request[REQUEST];
    int used;
};

/* Answers each request that is whole; 0 if the connection is to end. */
static int answer(int s, struct connection *c, const char *response, int length)
{
    ssize_t got = read(s, c->request + c->used, REQUEST - 1 - c->used);
    if (got <= 0)
        return 0;
    c->used += got;
    c->request[c->used] = 0;
    char *end = strstr(c->request, "\r\n\r\n");
    if (!end)
        return c->used < REQUEST - 1;
    int keeps = !strcasestr(c->request, "connection: close");
    send_all(s, response, length);
    c->used = 0;
    return keeps;
}

static void serve(const char *port, int body)
{
    static struct connection connections[CONNECTIONS];
    static struct pollfd polled[CONNECTIONS];
    static char response[BUFFER];
    int one = 1, count = 1;
    int length = snprintf(response, sizeof response, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", body);
    memset(response + length, 'x', body);
    length += body;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    demand(bind(listener, (struct sockaddr *)&at, sizeof at) == 0 && listen(listener, 128) == 0, "listen");
    polled[0] = (struct pollfd){listener, POLLIN, 0};
    for (;;) {
        demand(poll(polled, count, -1) > 0, "poll");
        for (int i = count - 1; i > 0; i--) {
            if (!polled[i].revents || answer(polled[i].fd, &connections[i], response, length))
                continue;
            close(polled[i].fd);
            polled[i] = polled[--count];
            connections[i] = connections[count];
        }
        if (!polled[0].revents || count == CONNECTIONS)
            continue;
        int s = accept(listener, NULL, NULL);
        demand(s >= 0, "accept");
        setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        connections[count].used = 0;
        polled[count++] = (struct pollfd){s, POLLIN, 0};
    }
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    if (strcmp(mode, "serve") == 0 && argc == 4)
        serve(argv[2], atoi(argv[3]));
    if (argc != 5) {
        fprintf(stderr, "usage: net receive|send|echo ADDRESS PORT AMOUNT, net serve PORT BODY_BYTES\n");
        return 2;
    }
    long amount = atol(argv[4]);
    int s = connected(argv[2], argv[3]);
    if (strcmp(mode, "receive") == 0)
        printf("%ld\n", receive(s, amount));
    else if (strcmp(mode, "send") == 0) {
        send_all(s, buffer, amount);
        shutdown(s, SHUT_WR);
        printf("%ld\n", amount + receive(s, 1));
    } else {
        for (long i = 0; i < amount; i++)
            demand(write(s, "x", 1) == 1 && read(s, buffer, 1) == 1, "echo");
        printf("%ld\n", amount);
    }
    return 0;
}
