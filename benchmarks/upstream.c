/* A model that costs nothing: an HTTP/1.1 keep-alive server on one epoll loop, for benchmarks/gateway.py.
 *
 * usage: upstream REPLY_BYTES EVENTS GAP_US
 *
 * Listens on a free port of loopback and prints it. A POST whose body asks for a stream gets EVENTS server-sent events,
 * one write each, GAP_US apart, then the end, the usage and [DONE]; all at once where its text holds "[at once]". Every
 * other POST gets a chat completion whose text has REPLY_BYTES bytes. Whoever leaves in the middle of a stream is printed with the monotonic time in
 * nanoseconds: "gone 123". Ends when its standard input does.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { MOST_CONNECTIONS = 4096, READ_BYTES = 65536, WAITED = 256 };

struct connection {
    char *data;
    size_t size, room;
    int open, streaming, sent, wants_usage;
};

#define AT_ONCE "[at once]"

static struct connection connections[MOST_CONNECTIONS];
static int active[MOST_CONNECTIONS], active_count;
static int events_a_stream, gap_us, poller, timer, listener;
static char *reply, *event_text, *head_text, *finish_text, *usage_text, *last_text;
static size_t reply_size;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static char *formatted(const char *format, ...) {
    char *made = NULL;
    va_list rest;
    va_start(rest, format);
    if (vasprintf(&made, format, rest) < 0) fail("vasprintf");
    va_end(rest);
    return made;
}

/* One event as one chunk of a chunked reply. */
static char *chunk(const char *json) {
    char *event = formatted("data: %s\n\n", json);
    char *made = formatted("%zx\r\n%s\r\n", strlen(event), event);
    free(event);
    return made;
}

#define CHUNK_JSON "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1800000000," \
                   "\"model\":\"m\",\"choices\":["
#define USAGE_JSON "\"usage\":{\"prompt_tokens\":75,\"completion_tokens\":40,\"total_tokens\":115}"

static void prepare(int reply_bytes) {
    char *text = malloc((size_t)reply_bytes + 1);
    for (int i = 0; i < reply_bytes; i++) text[i] = i % 6 == 5 ? ' ' : (char)('a' + i % 6);
    text[reply_bytes] = 0;
    char *body = formatted("{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1800000000,\"model\":\"m\","
                           "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"%s\"},"
                           "\"finish_reason\":\"stop\",\"logprobs\":null}]," USAGE_JSON "}", text);
    reply = formatted("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s",
                      strlen(body), body);
    reply_size = strlen(reply);
    head_text = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    event_text = chunk(CHUNK_JSON "{\"index\":0,\"delta\":{\"content\":\"a pawl holds \"},\"finish_reason\":null}]}");
    finish_text = chunk(CHUNK_JSON "{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}");
    usage_text = chunk(CHUNK_JSON "]," USAGE_JSON "}");
    char *done = chunk("[DONE]");
    last_text = formatted("%s0\r\n\r\n", done);
    free(text), free(body), free(done);
}

static void tick(int running) {
    long ns = running ? (gap_us > 0 ? gap_us : 1) * 1000L : 0;
    struct itimerspec every = {{ns / 1000000000L, ns % 1000000000L}, {ns / 1000000000L, ns % 1000000000L}};
    if (timerfd_settime(timer, 0, &every, NULL) < 0) fail("timerfd_settime");
}

static void leave(int fd) {
    struct connection *c = &connections[fd];
    if (c->streaming) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        printf("gone %lld\n", (long long)now.tv_sec * 1000000000LL + now.tv_nsec);
        fflush(stdout);
    }
    for (int i = 0; i < active_count; i++)
        if (active[i] == fd) active[i--] = active[--active_count];
    free(c->data);
    memset(c, 0, sizeof *c);
    close(fd);
}

/* All of it, waiting where the other side reads slowly; 0 where it has left. */
static int sent(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
        if (n > 0) {
            data += n, size -= (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            struct pollfd writable = {fd, POLLOUT, 0};
            poll(&writable, 1, 1000);
        } else {
            return 0;
        }
    }
    return 1;
}

/* The next event of a stream. */
static int step(int fd) {
    struct connection *c = &connections[fd];
    int place = c->sent++;
    if (place < events_a_stream) return sent(fd, event_text, strlen(event_text));
    if (place == events_a_stream) return sent(fd, finish_text, strlen(finish_text));
    if (place == events_a_stream + 1 && c->wants_usage) return sent(fd, usage_text, strlen(usage_text));
    c->streaming = 0;
    return sent(fd, last_text, strlen(last_text));
}

static int says(const char *body, size_t size, const char *name) {
    const char *at = memmem(body, size, name, strlen(name));
    if (!at) return 0;
    at += strlen(name);
    while (at < body + size && (*at == ' ' || *at == ':')) at++;
    return at + 4 <= body + size && !memcmp(at, "true", 4);
}

static int answer(int fd, const char *body, size_t size) {
    struct connection *c = &connections[fd];
    if (!says(body, size, "\"stream\"")) return sent(fd, reply, reply_size);
    c->wants_usage = says(body, size, "\"include_usage\"");
    c->streaming = 1, c->sent = 0;
    if (!sent(fd, head_text, strlen(head_text)) || !step(fd)) return 0;
    if (memmem(body, size, AT_ONCE, strlen(AT_ONCE))) {
        while (c->streaming)
            if (!step(fd)) return 0;
        return 1;
    }
    active[active_count++] = fd;
    if (active_count == 1) tick(1);
    return 1;
}

/* Every whole request that has come in; 0 where the connection is over. */
static int requests(int fd) {
    struct connection *c = &connections[fd];
    for (;;) {
        c->data[c->size] = 0;
        char *end = strstr(c->data, "\r\n\r\n");
        if (!end) return 1;
        char *said = strcasestr(c->data, "\r\ncontent-length:");
        size_t body = said && said < end ? strtoul(said + 17, NULL, 10) : 0;
        size_t whole = (size_t)(end + 4 - c->data) + body;
        if (c->size < whole) return 1;
        if (!answer(fd, end + 4, body)) return 0;
        memmove(c->data, c->data + whole, c->size - whole);
        c->size -= whole;
    }
}

static void readable(int fd) {
    struct connection *c = &connections[fd];
    for (;;) {
        if (c->room < c->size + READ_BYTES + 1) {
            c->room = 2 * (c->size + READ_BYTES + 1);
            c->data = realloc(c->data, c->room);
            if (!c->data) fail("realloc");
        }
        ssize_t n = recv(fd, c->data + c->size, READ_BYTES, 0);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) {
            leave(fd);
            return;
        }
        c->size += (size_t)n;
        if (!requests(fd)) {
            leave(fd);
            return;
        }
        if (n < READ_BYTES) return;
    }
}

static void ticked(void) {
    unsigned long long times;
    if (read(timer, &times, sizeof times) < 0) return;
    for (int i = 0; i < active_count; i++) {
        int fd = active[i];
        if (!step(fd)) {
            leave(fd);
            i--;
        } else if (!connections[fd].streaming) {
            active[i--] = active[--active_count];
        }
    }
    if (!active_count) tick(0);
}

static void welcome(void) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= MOST_CONNECTIONS) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        memset(&connections[fd], 0, sizeof connections[fd]);
        struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.fd = fd};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0) fail("epoll_ctl");
    }
}

static void watch(int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0) fail("epoll_ctl");
}

int main(int count, char **words) {
    if (count != 4) return fprintf(stderr, "usage: %s REPLY_BYTES EVENTS GAP_US\n", words[0]), 2;
    prepare(atoi(words[1]));
    events_a_stream = atoi(words[2]), gap_us = atoi(words[3]);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr *)&address, size) < 0 || listen(listener, 1024) < 0) fail("listen");
    getsockname(listener, (struct sockaddr *)&address, &size);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    poller = epoll_create1(EPOLL_CLOEXEC);
    watch(listener), watch(timer), watch(STDIN_FILENO);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    struct epoll_event waited[WAITED];
    for (;;) {
        int n = epoll_wait(poller, waited, WAITED, -1);
        for (int i = 0; i < n; i++) {
            int fd = waited[i].data.fd;
            if (fd == STDIN_FILENO) return 0;
            if (fd == listener) welcome();
            else if (fd == timer) ticked();
            else readable(fd);
        }
    }
}
