/* A server that tries its own sockets out and says what comes of it, in lines that a native run gives
 * as well. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int client;

static void say(const char *format, ...)
{
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (write(client, line, length) != length)
        exit(1);
}

/* A result with the name of its error. */
static const char *named(long result)
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

static const char *events(short bits)
{
    static char text[64];
    snprintf(text, sizeof text, "%s%s%s%s%s", bits & POLLIN ? "in " : "", bits & POLLOUT ? "out " : "",
             bits & POLLERR ? "err " : "", bits & POLLHUP ? "hup " : "",
             bits & POLLRDHUP ? "rdhup " : "");
    return text;
}

static const char *ready(int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP};
    poll(&one, 1, 0);
    return events(one.revents);
}

/* Waits until a descriptor is ready: natively, loopback may take a moment. */
static const char *await(int fd, short wanted)
{
    struct pollfd one = {.fd = fd, .events = wanted};
    poll(&one, 1, 5000);
    return ready(fd);
}

static struct sockaddr_in loopback(int port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return at;
}

static int port_of(int fd)
{
    struct sockaddr_in6 at;
    socklen_t len = sizeof at;
    if (getsockname(fd, (struct sockaddr *)&at, &len) < 0)
        return -1;
    return ntohs(at.sin6_port);
}

static int listener(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = loopback(0);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, 10) < 0)
        say("cannot listen\n");
    return fd;
}

static int connect_to(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = loopback(port);
    if (connect(fd, (struct sockaddr *)&at, sizeof at) < 0)
        say("cannot connect: %s\n", named(-1));
    return fd;
}

/* Both ends of a connection. */
static void linked(int ends[2])
{
    int on = listener();
    ends[0] = connect_to(port_of(on));
    ends[1] = accept(on, NULL, NULL);
    close(on);
}

static void close_both(int ends[2])
{
    close(ends[0]);
    close(ends[1]);
}

static int error_of(int fd)
{
    int error = -1;
    socklen_t len = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);
    return error;
}

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof value;
    return getsockopt(fd, level, name, &value, &len) < 0 ? -errno : value;
}

static void connecting(void)
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

static void ending(void)
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

static void listening(void)
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

static void reading(void)
{
    int ends[2], unread = 0;
    char bytes[16] = "";
    linked(ends);
    write(ends[0], "0123456789", 10);
    await(ends[1], POLLIN);
    ioctl(ends[1], FIONREAD, &unread);
    say("unread %d peek %s", unread, named(recv(ends[1], bytes, 4, MSG_PEEK)));
    say(" %.4s", bytes);
    say(" drop %s", named(recv(ends[1], NULL, 3, MSG_TRUNC)));
    say(" rest %s", named(recv(ends[1], bytes, 16, 0)));
    say(" %.7s\n", bytes);
    say("none %s", named(recv(ends[1], bytes, 9, MSG_DONTWAIT)));
    say(" zero %s\n", named(recv(ends[1], bytes, 0, MSG_DONTWAIT)));
    ioctl(ends[0], TIOCOUTQ, &unread);
    say("unsent %d mark %s\n", unread, named(sockatmark(ends[1])));
    say("urgent %s\n", named(recv(ends[1], bytes, 9, MSG_OOB | MSG_DONTWAIT)));
    say("errors %s\n", named(recv(ends[1], bytes, 9, MSG_ERRQUEUE)));
    pid_t child = fork();
    if (child == 0) {
        for (int at = 0; at < 4; at++) {
            usleep(20000);
            write(ends[0], "ab", 2);
        }
        _exit(0);
    }
    say("peek all %s", named(recv(ends[1], bytes, 6, MSG_PEEK | MSG_WAITALL)));
    say(" all %s", named(recv(ends[1], bytes, 8, MSG_WAITALL)));
    say(" %.8s\n", bytes);
    waitpid(child, NULL, 0);
    struct timeval soon = {0, 30000};
    setsockopt(ends[1], SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon);
    say("timeout %s\n", named(read(ends[1], bytes, 9)));
    struct iovec parts[3] = {{"one ", 4}, {"two ", 4}, {"three", 5}};
    struct mmsghdr messages[2] = {{.msg_hdr = {.msg_iov = parts, .msg_iovlen = 2}},
                                  {.msg_hdr = {.msg_iov = parts + 2, .msg_iovlen = 1}}};
    say("send two %s", named(sendmmsg(ends[0], messages, 2, 0)));
    say(" of %d and %d\n", messages[0].msg_len, messages[1].msg_len);
    await(ends[1], POLLIN);
    struct iovec into = {bytes, sizeof bytes};
    struct mmsghdr got = {.msg_hdr = {.msg_iov = &into, .msg_iovlen = 1}};
    say("receive %s", named(recvmmsg(ends[1], &got, 1, MSG_DONTWAIT, NULL)));
    say(" of %d %.13s\n", got.msg_len, bytes);
    close_both(ends);
}

static void windows(void)
{
    static char block[65536];
    int ends[2];
    linked(ends);
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    long sent = 0, put;
    while ((put = write(ends[0], block, sizeof block)) > 0)
        sent += put;
    say("full %s %s\n", named(put), ready(ends[0]));
    long got = 0, part;
    while (got < sent && (part = read(ends[1], block, sizeof block)) > 0)
        got += part;
    say("all %d writable %s\n", got == sent, await(ends[0], POLLOUT));
    close_both(ends);
}

static void *fills(void *fd)
{
    static char block[3000000];
    long done = write(*(int *)fd, block, sizeof block);
    shutdown(*(int *)fd, SHUT_WR);
    return (void *)done;
}

static void blocking(void)
{
    int ends[2];
    linked(ends);
    pthread_t thread;
    pthread_create(&thread, NULL, fills, &ends[0]);
    static char block[100000];
    long got = 0, part;
    while ((part = read(ends[1], block, sizeof block)) > 0)
        got += part;
    void *done;
    pthread_join(thread, &done);
    say("wrote %ld read %ld\n", (long)done, got);
    close_both(ends);
}

static void splicing(void)
{
    int ends[2], pipes[2], other[2];
    char bytes[64] = "";
    linked(ends);
    if (pipe(pipes) || pipe(other))
        say("no pipes\n");
    write(ends[0], "through the pipe", 16);
    await(ends[1], POLLIN);
    say("in %s", named(splice(ends[1], NULL, pipes[1], NULL, 100, 0)));
    say(" tee %s", named(tee(pipes[0], other[1], 100, 0)));
    say(" out %s", named(splice(pipes[0], NULL, ends[1], NULL, 7, SPLICE_F_MORE)));
    say(" rest %s\n", named(read(pipes[0], bytes, 64)));
    say("%.9s", bytes);
    await(ends[0], POLLIN);
    say(" came %s", named(read(ends[0], bytes, 64)));
    say(" %.7s", bytes);
    say(" copy %s\n", named(read(other[0], bytes, 64)));
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    say("empty %s\n", named(splice(ends[1], NULL, pipes[1], NULL, 100, 0)));
    struct iovec memory = {"memory", 6};
    say("memory %s", named(vmsplice(pipes[1], &memory, 1, 0)));
    say(" sent %s\n", named(splice(pipes[0], NULL, ends[1], NULL, 100, 0)));
    say("two sockets %s\n", named(splice(ends[0], NULL, ends[1], NULL, 100, 0)));
    int file = open("splice.tmp", O_RDWR | O_CREAT | O_TRUNC, 0600);
    write(file, "0123456789abcdef", 16);
    off_t at = 4;
    say("file %s", named(sendfile(ends[0], file, &at, 100)));
    say(" to %ld\n", (long)at);
    lseek(file, 10, SEEK_SET);
    say("from here %s", named(sendfile(ends[0], file, NULL, 3)));
    say(" at %ld\n", (long)lseek(file, 0, SEEK_CUR));
    say("to a pipe %s", named(sendfile(pipes[1], file, NULL, 100)));
    say(" %s\n", named(splice(pipes[0], NULL, ends[0], NULL, 100, 0)));
    shutdown(ends[0], SHUT_WR);
    fcntl(ends[1], F_SETFL, 0);
    memset(bytes, 0, sizeof bytes);
    say("came %s", named(recv(ends[1], bytes, 64, MSG_WAITALL)));
    say(" %s", bytes);
    say(" end %s\n", named(splice(ends[1], NULL, pipes[1], NULL, 100, 0)));
    close(file);
    unlink("splice.tmp");
    close_both(ends);
    close_both(pipes);
    close_both(other);
}

static void watch(int epoll, int fd, unsigned what, int data)
{
    struct epoll_event event = {.events = what, .data.u64 = data};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        say("cannot watch: %s\n", named(-1));
}

static void collect(const char *title, int epoll)
{
    struct epoll_event got[8];
    int count = epoll_wait(epoll, got, 8, 0);
    say("%s %d", title, count);
    for (int at = 0; at < count; at++)
        say(" (%d %s)", (int)got[at].data.u64, events(got[at].events));
    say("\n");
}

static void nesting(void)
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

static void epolls(void)
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

static void replacing(void)
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

static int send_fds(int over, const int *fds, int count)
{
    char control[CMSG_SPACE(8 * sizeof(int))] = "";
    struct iovec one = {"fds", 3};
    struct msghdr message = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = control};
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(header), fds, count * sizeof(int));
    return sendmsg(over, &message, 0);
}

/* As many descriptors as there is room for. */
static int receive_fds(int over, int *fds, int room, int *flags)
{
    char control[CMSG_SPACE(8 * sizeof(int))], text[8];
    struct iovec one = {text, sizeof text};
    struct msghdr message = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = control};
    message.msg_controllen = CMSG_LEN(room * sizeof(int));
    if (recvmsg(over, &message, *flags) < 0)
        return -1;
    *flags = message.msg_flags;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (!header)
        return 0;
    int count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    memcpy(fds, CMSG_DATA(header), count * sizeof(int));
    return count;
}

static void passed_on(int over)
{
    int fds[8], flags = MSG_CMSG_CLOEXEC, cloexec = 0;
    char bytes[16] = "";
    int count = receive_fds(over, fds, 8, &flags);
    for (int at = 0; at < count; at++)
        cloexec += fcntl(fds[at], F_GETFD) & FD_CLOEXEC;
    say("got %d flags %d cloexec %d\n", count, flags & MSG_CTRUNC, cloexec);
    say("connection %s", named(read(fds[0], bytes, 16)));
    say(" %s\n", bytes);
    write(fds[0], "from the child", 14);
    collect("epoll", fds[1]);
    eventfd_t value = 0;
    say("counter %s", named(eventfd_read(fds[2], &value)));
    say(" %d\n", (int)value);
    say("pipe %s\n", named(write(fds[3], "pipe", 4)));
    memset(bytes, 0, sizeof bytes);
    say("file %s", named(pread(fds[4], bytes, 9, 0)));
    say(" %s\n", bytes);
    int more = accept(fds[5], NULL, NULL);
    say("listener %d\n", more >= 0);
    write(more, "accepted", 8);
    flags = MSG_PEEK;
    count = receive_fds(over, fds, 8, &flags);
    say("peeked %d", count);
    write(fds[0], "p", 1);
    flags = 0;
    count = receive_fds(over, fds, 1, &flags);
    say(" cut to %d flags %d\n", count, flags & MSG_CTRUNC);
    write(fds[0], "q", 1);
    _exit(0);
}

static void passing(void)
{
    int ends[2], pair[2], pipes[2], status;
    linked(ends);
    if (pipe(pipes) || socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
        say("no pipe\n");
    int on = listener(), epoll = epoll_create1(0), counter = eventfd(7, 0);
    int file = open("passed.tmp", O_RDWR | O_CREAT | O_TRUNC, 0600);
    write(file, "contents", 8);
    watch(epoll, pipes[0], EPOLLIN, 5);
    watch(epoll, ends[1], EPOLLOUT, 6);
    pid_t child = fork();
    if (child == 0) {
        /* Nothing of the parent's but the way that others come by. */
        int keep = dup2(pair[1], 900), says = dup2(client, 901);
        for (int fd = 3; fd < 900; fd++)
            close(fd);
        client = says;
        passed_on(keep);
    }
    write(ends[0], "to the child", 12);
    int fds[] = {ends[1], epoll, counter, pipes[1], file, on};
    send_fds(pair[0], fds, 6);
    close(ends[1]);
    int to = connect_to(port_of(on));
    char bytes[32] = "";
    await(to, POLLIN);
    read(to, bytes, 9);
    send_fds(pair[0], (int[]){pipes[1], pipes[1], pipes[1]}, 3);
    waitpid(child, &status, 0);
    say("heard %s status %d\n", bytes, status);
    memset(bytes, 0, sizeof bytes);
    await(ends[0], POLLRDHUP);
    say("answer %s", named(read(ends[0], bytes, 31)));
    say(" %s", bytes);
    say(" end %s\n", named(read(ends[0], bytes, 9)));
    close(pipes[1]);
    memset(bytes, 0, sizeof bytes);
    say("from pipe %s", named(read(pipes[0], bytes, 9)));
    say(" %s", bytes);
    say(" end %s\n", named(read(pipes[0], bytes, 9)));
    unlink("passed.tmp");
    close(file);
    close(to);
    close(on);
    close(epoll);
    close(counter);
    close(pipes[0]);
    close(ends[0]);
    close_both(pair);
}

static void unix_sockets(void)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX, .sun_path = "socket.tmp"}, peer;
    unlink(at.sun_path);
    int on = socket(AF_UNIX, SOCK_STREAM, 0), from = socket(AF_UNIX, SOCK_STREAM, 0), flags = 0;
    say("nobody %s\n", named(connect(from, (struct sockaddr *)&at, sizeof at)));
    say("bind %s", named(bind(on, (struct sockaddr *)&at, sizeof at)));
    say(" refused %s", named(connect(from, (struct sockaddr *)&at, sizeof at)));
    say(" listen %s\n", named(listen(on, 5)));
    struct stat status;
    say("there %s", named(stat(at.sun_path, &status)));
    say(" %d\n", S_ISSOCK(status.st_mode) != 0);
    say("connect %s\n", named(connect(from, (struct sockaddr *)&at, sizeof at)));
    say("acceptable %s\n", ready(on));
    socklen_t len = sizeof peer;
    int fd = accept(on, (struct sockaddr *)&peer, &len);
    say("accepted %d length %d\n", fd >= 0, len);
    len = sizeof peer;
    getpeername(from, (struct sockaddr *)&peer, &len);
    say("peer %s length %d\n", peer.sun_path, len);
    struct ucred who;
    len = sizeof who;
    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len);
    say("who %d %d\n", who.pid == getpid(), who.uid == getuid());
    say("type %d domain %d\n", option(fd, SOL_SOCKET, SO_TYPE), option(fd, SOL_SOCKET, SO_DOMAIN));
    char bytes[32] = "";
    write(from, "hello", 5);
    say("read %s", named(read(fd, bytes, 9)));
    say(" %s ready %s\n", bytes, ready(fd));
    int pipes[2], got[2];
    if (pipe(pipes))
        say("no pipe\n");
    send_fds(fd, &pipes[1], 1);
    say("fds %d", receive_fds(from, got, 1, &flags));
    write(got[0], "by fd", 5);
    memset(bytes, 0, sizeof bytes);
    say(" %s", named(read(pipes[0], bytes, 9)));
    say(" %s\n", bytes);
    shutdown(from, SHUT_WR);
    say("half %s\n", ready(fd));
    say("end %s\n", named(read(fd, bytes, 9)));
    write(fd, "last", 4);
    close(fd);
    memset(bytes, 0, sizeof bytes);
    say("last %s", named(read(from, bytes, 9)));
    say(" %s", bytes);
    say(" end %s\n", named(read(from, bytes, 9)));
    say("again %s\n", named(bind(got[0], (struct sockaddr *)&at, sizeof at)));
    close(on);
    int late = socket(AF_UNIX, SOCK_STREAM, 0);
    say("late %s\n", named(connect(late, (struct sockaddr *)&at, sizeof at)));
    say("taken %s\n", named(bind(late, (struct sockaddr *)&at, sizeof at)));
    unlink(at.sun_path);
    close(late);
    close(from);
    close(got[0]);
    close_both(pipes);
    struct sockaddr_un hidden = {.sun_family = AF_UNIX, .sun_path = "\0brolga test"};
    len = offsetof(struct sockaddr_un, sun_path) + 12;
    on = socket(AF_UNIX, SOCK_STREAM, 0), from = socket(AF_UNIX, SOCK_STREAM, 0);
    say("hidden %s", named(bind(on, (struct sockaddr *)&hidden, len)));
    listen(on, 5);
    say(" %s", named(connect(from, (struct sockaddr *)&hidden, len)));
    len = sizeof peer;
    getsockname(on, (struct sockaddr *)&peer, &len);
    say(" length %d\n", len);
    close(on);
    close(from);
}

/* Names that are in no file system, and one that is left to the system. */
static void hidden_names(void)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX, .sun_path = "\0brolga datagrams"}, own, peer;
    socklen_t at_len = offsetof(struct sockaddr_un, sun_path) + 17, len = sizeof own;
    int on = socket(AF_UNIX, SOCK_DGRAM, 0), from = socket(AF_UNIX, SOCK_DGRAM, 0);
    say("bind %s", named(bind(on, (struct sockaddr *)&at, at_len)));
    say(" left %s", named(bind(from, (struct sockaddr *)&own, sizeof(sa_family_t))));
    own.sun_family = AF_UNIX;
    say(" left %s", named(bind(from, (struct sockaddr *)&own, sizeof(sa_family_t))));
    getsockname(from, (struct sockaddr *)&own, &len);
    say(" length %d\n", len);
    say("sent %s", named(sendto(from, "to", 2, 0, (struct sockaddr *)&at, at_len)));
    socklen_t peer_len = sizeof peer;
    char bytes[8] = "";
    say(" got %s", named(recvfrom(on, bytes, 8, 0, (struct sockaddr *)&peer, &peer_len)));
    say(" %s from %d same %d\n", bytes, peer_len, peer_len == len && !memcmp(&own, &peer, len));
    say("back %s", named(sendto(on, "back", 4, 0, (struct sockaddr *)&peer, peer_len)));
    struct iovec piece = {.iov_base = bytes, .iov_len = sizeof bytes};
    memset(&peer, 0, sizeof peer);
    struct msghdr message = {.msg_name = &peer, .msg_namelen = 10, .msg_iov = &piece, .msg_iovlen = 1};
    say(" got %s", named(recvmsg(from, &message, 0)));
    say(" from %d %s\n", message.msg_namelen, peer.sun_path + 1);
    message.msg_name = &at;
    message.msg_namelen = at_len;
    say("sent %s", named(sendmsg(from, &message, 0)));
    say(" got %s\n", named(recv(on, bytes, 8, 0)));
    memset(at.sun_path + 1, 'n', sizeof at.sun_path - 1);
    say("long %s\n", named(connect(from, (struct sockaddr *)&at, sizeof at + 1)));
    say("nobody %s\n", named(connect(from, (struct sockaddr *)&at, 90)));
    close(on);
    close(from);
}

int main(int argc, char **argv)
{
    (void)argc;
    int on = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    setsockopt(on, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(on, (struct sockaddr *)&at, sizeof at) < 0 || listen(on, 10) < 0)
        return 1;
    for (;;) {
        char request;
        client = accept(on, NULL, NULL);
        if (client < 0)
            continue;
        if (read(client, &request, 1) == 1) {
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
        close(client);
    }
}
