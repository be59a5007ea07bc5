/* A server that tries its own sockets out and says what comes of it, in lines that a native run gives
 * as well. */
#include "sockets.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

const char *named(long result)
{
    static char text[4][64];
    static int turn;
    char *into = text[turn++ % 4];
    if (result < 0)
        snprintf(into, 64, "%s", strerrorname_np(errno));
    else
        snprintf(into, 64, "%ld", result);
    return into;
}

const char *events(short bits)
{
    static char text[64];
    snprintf(text, sizeof text, "%s%s%s%s%s", bits & POLLIN ? "in " : "", bits & POLLOUT ? "out " : "",
             bits & POLLERR ? "err " : "", bits & POLLHUP ? "hup " : "",
             bits & POLLRDHUP ? "rdhup " : "");
    return text;
}

const char *ready(int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP};
    poll(&one, 1, 0);
    return events(one.revents);
}

const char *await(int fd, short wanted)
{
    struct pollfd one = {.fd = fd, .events = wanted};
    poll(&one, 1, 5000);
    return ready(fd);
}

struct sockaddr_in loopback(int port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return at;
}

int port_of(int fd)
{
    struct sockaddr_in6 at;
    socklen_t len = sizeof at;
    if (getsockname(fd, (struct sockaddr *)&at, &len) < 0)
        return -1;
    return ntohs(at.sin6_port);
}

int listener(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = loopback(0);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, 10) < 0)
        say("cannot listen\n");
    return fd;
}

int connect_to(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = loopback(port);
    if (connect(fd, (struct sockaddr *)&at, sizeof at) < 0)
        say("cannot connect: %s\n", named(-1));
    return fd;
}

void linked(int ends[2])
{
    int on = listener();
    ends[0] = connect_to(port_of(on));
    ends[1] = accept(on, NULL, NULL);
    close(on);
}

void close_both(int ends[2])
{
    close(ends[0]);
    close(ends[1]);
}

int error_of(int fd)
{
    int error = -1;
    socklen_t len = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);
    return error;
}

int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof value;
    return getsockopt(fd, level, name, &value, &len) < 0 ? -errno : value;
}

static void answer(char request)
{
    (void)request;
    connecting();
    ending();
    listening();
    reading();
    windows();
    blocking();
    splicing();
    nesting();
    epolls();
    replacing();
    passing();
    unix_sockets();
    hidden_names();
}

int main(int argc, char **argv)
{
    (void)argc;
    serve(listen_on(argv[1], 0), 0, answer);
}
