/* Epoll instances: in others, several of one socket; and descriptors that are replaced. */
#include "sockets.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

void watch(int epoll, int fd, unsigned what, int data)
{
    struct epoll_event event = {.events = what, .data.u64 = data};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        say("cannot watch: %s\n", named(-1));
}

void collect(const char *title, int epoll)
{
    struct epoll_event got[8];
    int count = epoll_wait(epoll, got, 8, 0);
    say("%s %d", title, count);
    for (int at = 0; at < count; at++)
        say(" (%d %s)", (int)got[at].data.u64, events(got[at].events));
    say("\n");
}

void nesting(void)
{
    int ends[2], outer = epoll_create1(0), inner = epoll_create1(0), pipes[2];
    linked(ends);
    if (pipe(pipes))
        say("no pipe\n");
    watch(inner, ends[1], EPOLLIN, 1);
    watch(inner, pipes[0], EPOLLIN, 2);
    watch(outer, inner, EPOLLIN, 9);
    collect("quiet", outer);
    write(ends[0], "x", 1);
    await(ends[1], POLLIN);
    collect("outer", outer);
    collect("inner", inner);
    say("poll %s\n", ready(inner));
    char bytes[9];
    read(ends[1], bytes, 9);
    collect("read", outer);
    write(pipes[1], "x", 1);
    collect("real", outer);
    collect("inner", inner);
    read(pipes[0], bytes, 9);
    collect("read", outer);
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = 8};
    epoll_ctl(outer, EPOLL_CTL_MOD, inner, &event);
    write(ends[0], "x", 1);
    await(ends[1], POLLIN);
    collect("edge", outer);
    collect("once", outer);
    write(ends[0], "x", 1);
    say("itself %s\n", named(epoll_ctl(inner, EPOLL_CTL_ADD, inner, &event)));
    say("loop %s\n", named(epoll_ctl(inner, EPOLL_CTL_ADD, outer, &event)));
    say("twice %s\n", named(epoll_ctl(outer, EPOLL_CTL_ADD, inner, &event)));
    say("gone %s\n", named(epoll_ctl(outer, EPOLL_CTL_DEL, inner, &event)));
    collect("after", outer);
    close(inner);
    close(outer);
    close_both(ends);
    close_both(pipes);
}

void epolls(void)
{
    int ends[2], first = epoll_create1(0), second = epoll_create1(0), pair[2];
    linked(ends);
    watch(first, ends[1], EPOLLIN | EPOLLEXCLUSIVE, 1);
    watch(second, ends[1], EPOLLIN | EPOLLEXCLUSIVE, 2);
    write(ends[0], "x", 1);
    await(ends[1], POLLIN);
    collect("first", first);
    collect("second", second);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 3};
    say("modify %s\n", named(epoll_ctl(first, EPOLL_CTL_MOD, ends[1], &event)));
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    watch(first, pair[0], EPOLLIN | EPOLLRDHUP | EPOLLET, 4);
    shutdown(pair[1], SHUT_WR);
    char bytes[9];
    read(ends[1], bytes, 9);
    collect("shut", first);
    close(pair[1]);
    collect("closed", first);
    collect("once", first);
    close(pair[0]);
    close_both(ends);
    close(first);
    close(second);
}

void replacing(void)
{
    int ends[2], others[2];
    char bytes[9] = "";
    linked(ends);
    linked(others);
    say("onto %d", dup2(ends[0], others[0]) == others[0]);
    say(" ends %s\n", await(others[1], POLLRDHUP));
    write(others[0], "dup", 3);
    await(ends[1], POLLIN);
    say("same %s", named(read(ends[1], bytes, 9)));
    close(ends[0]);
    write(others[0], "yes", 3);
    await(ends[1], POLLIN);
    say(" still %s\n", named(read(ends[1], bytes, 9)));
    int file = open("/dev/null", O_RDWR);
    dup2(file, others[0]);
    say("over %s", await(ends[1], POLLRDHUP));
    say("end %s\n", named(read(ends[1], bytes, 9)));
    close(file);
    close_both(others);
    close(ends[1]);
}
