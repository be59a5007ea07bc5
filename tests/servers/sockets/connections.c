/* Connections: how they begin and end, and listeners that are shut or share a port. */
#include "sockets.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

void connecting(void)
{
    int on = listener(), fresh = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    say("fresh: %s port %d\n", ready(fresh), port_of(fresh));
    struct sockaddr_in at = loopback(port_of(on));
    say("accepts %d and %d\n", option(on, SOL_SOCKET, SO_ACCEPTCONN),
        option(fresh, SOL_SOCKET, SO_ACCEPTCONN));
    say("begins %s\n", named(connect(fresh, (struct sockaddr *)&at, sizeof at)));
    say("then %s error %d\n", await(fresh, POLLOUT), error_of(fresh));
    say("again %s\n", named(connect(fresh, (struct sockaddr *)&at, sizeof at)));
    say("and again %s\n", named(connect(fresh, (struct sockaddr *)&at, sizeof at)));
    say("listener %s, connects %s\n", await(on, POLLIN), named(connect(on, (struct sockaddr *)&at, 16)));
    struct sockaddr_in6 six = {.sin6_family = AF_INET6};
    int other = socket(AF_INET, SOCK_STREAM, 0);
    say("families %s\n", named(connect(other, (struct sockaddr *)&six, sizeof six)));
    say("short %s\n", named(connect(other, (struct sockaddr *)&at, 4)));
    say("unconnected %s %s %s\n", named(read(other, &at, 1)), named(send(other, "x", 1, MSG_NOSIGNAL)),
        named(shutdown(other, SHUT_WR)));
    int accepted = accept(on, NULL, NULL);
    say("type %d domain %d protocol %d\n", option(accepted, SOL_SOCKET, SO_TYPE),
        option(accepted, SOL_SOCKET, SO_DOMAIN), option(accepted, SOL_SOCKET, SO_PROTOCOL));
    struct tcp_info info;
    socklen_t len = sizeof info;
    say("info %s", named(getsockopt(accepted, IPPROTO_TCP, TCP_INFO, &info, &len)));
    say(" state %d\n", info.tcpi_state);
    getsockopt(on, IPPROTO_TCP, TCP_INFO, &info, &len);
    say("listener's state %d\n", info.tcpi_state);
    close(accepted);
    close(on);
    struct sockaddr_in nobody = loopback(1);
    say("nobody %s\n", named(connect(other, (struct sockaddr *)&nobody, sizeof nobody)));
    close(other);
    close(fresh);
}

void ending(void)
{
    int ends[2];
    char bytes[16];
    linked(ends);
    say("open %s| %s\n", ready(ends[0]), ready(ends[1]));
    shutdown(ends[0], SHUT_WR);
    say("half %s|", await(ends[1], POLLRDHUP));
    say(" %s\n", ready(ends[0]));
    say("end %s\n", named(read(ends[1], bytes, 9)));
    say("write %s\n", named(write(ends[1], "still", 5)));
    await(ends[0], POLLIN);
    say("read %s\n", named(read(ends[0], bytes, 9)));
    say("broken %s\n", named(send(ends[0], "x", 1, MSG_NOSIGNAL)));
    shutdown(ends[1], SHUT_WR);
    say("ended %s|", await(ends[0], POLLRDHUP));
    say(" %s\n", await(ends[1], POLLHUP));
    close_both(ends);

    linked(ends);
    say("unread %s\n", named(write(ends[0], "unread", 6)));
    await(ends[1], POLLIN);
    say("sent before %s\n", named(write(ends[1], "before", 6)));
    await(ends[0], POLLIN);
    close(ends[1]);
    say("reset %s", await(ends[0], POLLHUP));
    say("read %s", named(read(ends[0], bytes, 16)));
    say(" %s", named(read(ends[0], bytes, 16)));
    say(" %s", named(read(ends[0], bytes, 16)));
    say(" write %s\n", named(send(ends[0], "x", 1, MSG_NOSIGNAL)));
    close(ends[0]);

    linked(ends);
    struct linger now = {1, 0};
    setsockopt(ends[1], SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(ends[1]);
    say("aborted %s", await(ends[0], POLLHUP));
    say("error %d", error_of(ends[0]));
    say(" then %d", error_of(ends[0]));
    say(" read %s\n", named(read(ends[0], bytes, 9)));
    close(ends[0]);

    linked(ends);
    close(ends[1]);
    say("closed %s", await(ends[0], POLLRDHUP));
    say("first %s", named(send(ends[0], "x", 1, MSG_NOSIGNAL)));
    say(" %s", await(ends[0], POLLHUP));
    say("second %s\n", named(send(ends[0], "x", 1, MSG_NOSIGNAL)));
    close(ends[0]);
}

static void *accepts(void *on)
{
    int fd = accept(*(int *)on, NULL, NULL);
    return (void *)(long)(fd < 0 ? -errno : fd);
}

void listening(void)
{
    int on = listener();
    pthread_t thread;
    pthread_create(&thread, NULL, accepts, &on);
    usleep(50000);
    say("shut %s", named(shutdown(on, SHUT_RDWR)));
    void *result;
    pthread_join(thread, &result);
    say(" woken by %s\n", strerrorname_np(-(long)result));
    say("accept %s", named(accept(on, NULL, NULL)));
    say(" listen %s\n", named(listen(on, 5)));
    close(on);

    int six = socket(AF_INET6, SOCK_STREAM, 0), four = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    struct sockaddr_in6 any6 = {.sin6_family = AF_INET6};
    struct sockaddr_in any4 = {.sin_family = AF_INET};
    bind(six, (struct sockaddr *)&any6, sizeof any6);
    listen(six, 5);
    any4.sin_port = htons(port_of(six));
    say("both %s\n", named(bind(four, (struct sockaddr *)&any4, sizeof any4)));
    struct sockaddr_in at = loopback(port_of(six));
    int from = socket(AF_INET, SOCK_STREAM, 0);
    say("to six %s\n", named(connect(from, (struct sockaddr *)&at, sizeof at)));
    struct sockaddr_in6 peer;
    socklen_t len = sizeof peer;
    char text[64];
    int fd = accept(six, (struct sockaddr *)&peer, &len);
    say("from %s length %d\n", inet_ntop(AF_INET6, &peer.sin6_addr, text, sizeof text), len);
    close(fd);
    close(from);
    close(six);
    close(four);
    six = socket(AF_INET6, SOCK_STREAM, 0), four = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(six, IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof yes);
    bind(six, (struct sockaddr *)&any6, sizeof any6);
    listen(six, 5);
    any4.sin_port = htons(port_of(six));
    at = loopback(port_of(six));
    from = socket(AF_INET, SOCK_STREAM, 0);
    say("only six %d %s\n", option(six, IPPROTO_IPV6, IPV6_V6ONLY),
        named(connect(from, (struct sockaddr *)&at, sizeof at)));
    say("both %s\n", named(bind(four, (struct sockaddr *)&any4, sizeof any4)));
    listen(four, 5);
    int fifth = socket(AF_INET, SOCK_STREAM, 0);
    say("taken %s\n", named(bind(fifth, (struct sockaddr *)&at, sizeof at)));
    setsockopt(fifth, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    say("still %s\n", named(bind(fifth, (struct sockaddr *)&at, sizeof at)));
    close(from);
    close(six);
    close(four);
    close(fifth);
}
