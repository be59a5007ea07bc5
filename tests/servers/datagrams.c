/* A server that tries what programs do with datagram sockets, one round per connection, and answers with
 * what it saw. All of it happens over loopback between its own sockets, and the numbers of free ports
 * are not told, so a native run gives the same lines. */
#include "server.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

/* The result of a call, and why it failed. */
static void tell(const char *what, long result)
{
    if (result < 0)
        say("%s: %s\n", what, strerrorname_np(errno));
    else
        say("%s: %ld\n", what, result);
}

typedef union {
    struct sockaddr any;
    struct sockaddr_in four;
    struct sockaddr_in6 six;
} address;

static socklen_t address_length(const address *at)
{
    return at->any.sa_family == AF_INET ? sizeof at->four : sizeof at->six;
}

static address at(const char *ip, int port)
{
    address made = {0};
    if (strchr(ip, ':')) {
        made.six.sin6_family = AF_INET6;
        made.six.sin6_port = htons(port);
        inet_pton(AF_INET6, ip, &made.six.sin6_addr);
    } else {
        made.four.sin_family = AF_INET;
        made.four.sin_port = htons(port);
        inet_pton(AF_INET, ip, &made.four.sin_addr);
    }
    return made;
}

static int port_of(const address *of)
{
    return ntohs(of->any.sa_family == AF_INET ? of->four.sin_port : of->six.sin6_port);
}

/* An address, and whether its port is the expected one. */
static const char *shown(const address *of, int port)
{
    static char text[2][80];
    static int turn;
    char ip[64];
    const void *bytes = of->any.sa_family == AF_INET ? (const void *)&of->four.sin_addr
                                                     : (const void *)&of->six.sin6_addr;
    inet_ntop(of->any.sa_family, bytes, ip, sizeof ip);
    turn = !turn;
    snprintf(text[turn], sizeof text[turn], "%s %s", ip,
             port_of(of) == port ? "same port" : "other port");
    return text[turn];
}

static int made(int family, int flags)
{
    int fd = socket(family, SOCK_DGRAM | flags, 0);
    if (fd < 0)
        exit(2);
    return fd;
}

static int bound_with(int family, const char *ip, int port, int option)
{
    int fd = made(family, 0), on = 1;
    if (option)
        setsockopt(fd, SOL_SOCKET, option, &on, sizeof on);
    address to = at(ip, port);
    if (bind(fd, &to.any, address_length(&to)) < 0) {
        int why = errno;
        close(fd);
        errno = why;
        return -1;
    }
    return fd;
}

static int bound(const char *ip)
{
    return bound_with(strchr(ip, ':') ? AF_INET6 : AF_INET, ip, 0, 0);
}

static int port_at(int fd)
{
    address own = {0};
    socklen_t length = sizeof own;
    getsockname(fd, &own.any, &length);
    return port_of(&own);
}

static long send_to(int fd, const char *text, const char *ip, int port)
{
    address to = at(ip, port);
    return sendto(fd, text, strlen(text), 0, &to.any, address_length(&to));
}

static long connect_to(int fd, const char *ip, int port)
{
    address to = at(ip, port);
    return connect(fd, &to.any, address_length(&to));
}

/* Receives, and tells from whom. */
static void take(const char *what, int fd, int flags, int port)
{
    char bytes[100] = "";
    address from = {0};
    socklen_t length = sizeof from;
    long got = recvfrom(fd, bytes, sizeof bytes - 1, flags, &from.any, &length);
    if (got < 0)
        tell(what, got);
    else
        say("%s: %ld \"%s\" from %s, %d\n", what, got, bytes, shown(&from, port), (int)length);
}

static int waiting(int fd)
{
    int bytes = -1;
    ioctl(fd, FIONREAD, &bytes);
    return bytes;
}

static int polled(int fd, int events, int timeout)
{
    struct pollfd one = {.fd = fd, .events = events};
    int ready = poll(&one, 1, timeout);
    return ready < 0 ? ready : one.revents;
}

static void bounds(void)
{
    int here = bound("127.0.0.1"), there = bound("127.0.0.1");
    int port = port_at(here), from = port_at(there);
    char bytes[100];
    tell("nothing", recv(here, bytes, 10, MSG_DONTWAIT));
    tell("first", send_to(there, "first", "127.0.0.1", port));
    tell("empty", send_to(there, "", "127.0.0.1", port));
    tell("second", send_to(there, "second one", "127.0.0.1", port));
    say("waiting %d\n", waiting(here));
    take("peek", here, MSG_PEEK, from);
    tell("short peek", recv(here, bytes, 2, MSG_PEEK));
    tell("true length", recv(here, bytes, 2, MSG_PEEK | MSG_TRUNC));
    tell("no room", read(here, bytes, 0));
    tell("short", recv(here, bytes, 2, 0));
    say("waiting %d\n", waiting(here));
    take("empty", here, 0, from);
    say("waiting %d\n", waiting(here));
    struct iovec pieces[3] = {{bytes, 3}, {bytes + 50, 0}, {bytes + 10, 20}};
    long got = readv(here, pieces, 3);
    say("pieces %ld \"%.3s\" \"%.7s\"\n", got, bytes, bytes + 10);
    tell("drained", recv(here, bytes, 10, MSG_DONTWAIT));
    char *large = calloc(1, 70000);
    large[65506] = 'x';
    address to = at("127.0.0.1", port);
    tell("too large", sendto(there, large, 65508, 0, &to.any, sizeof to.four));
    tell("largest", sendto(there, large, 65507, 0, &to.any, sizeof to.four));
    memset(large, 0, 65507);
    tell("largest", recv(here, large, 70000, 0));
    say("its end '%c'\n", large[65506]);
    free(large);
    tell("out of band", recv(here, bytes, 10, MSG_OOB | MSG_DONTWAIT));
    tell("out of band", sendto(there, "x", 1, MSG_OOB, &to.any, sizeof to.four));
    tell("errors", recv(here, bytes, 10, MSG_ERRQUEUE | MSG_DONTWAIT));
    tell("no address", send(there, "x", 1, 0));
    tell("port 0", send_to(there, "x", "127.0.0.1", 0));
    tell("listen", listen(here, 5));
    close(here);
    close(there);
}

static void show_control(struct msghdr *message)
{
    for (struct cmsghdr *one = CMSG_FIRSTHDR(message); one; one = CMSG_NXTHDR(message, one)) {
        char text[64];
        if (one->cmsg_level == IPPROTO_IP && one->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(one), sizeof info);
            inet_ntop(AF_INET, &info.ipi_addr, text, sizeof text);
            say("control 4: %s, length %d, interface %d\n", text, (int)one->cmsg_len,
                info.ipi_ifindex);
        } else if (one->cmsg_level == IPPROTO_IPV6 && one->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo info;
            memcpy(&info, CMSG_DATA(one), sizeof info);
            inet_ntop(AF_INET6, &info.ipi6_addr, text, sizeof text);
            say("control 6: %s, length %d, interface %d\n", text, (int)one->cmsg_len,
                info.ipi6_ifindex);
        } else {
            say("control %d %d\n", one->cmsg_level, one->cmsg_type);
        }
    }
}

static void messages(void)
{
    int here = bound("0.0.0.0"), there = bound("127.0.0.1"), on = 1;
    int port = port_at(here), from = port_at(there);
    setsockopt(here, IPPROTO_IP, IP_PKTINFO, &on, sizeof on);
    socklen_t length = sizeof on;
    on = 0;
    getsockopt(here, IPPROTO_IP, IP_PKTINFO, &on, &length);
    say("option kept %d\n", on);
    const char *targets[] = {"127.0.0.1", "127.0.0.9"};
    for (int number = 0; number < 2; number++) {
        send_to(there, "question", targets[number], port);
        char bytes[8], control[100];
        address peer = {0};
        struct iovec piece = {bytes, 5};
        struct msghdr message = {&peer, sizeof peer, &piece, 1, control, sizeof control, 0};
        tell("message", recvmsg(here, &message, 0));
        say("from %s, %d, flags %x, control %zu\n", shown(&peer, from), message.msg_namelen,
            message.msg_flags, message.msg_controllen);
        show_control(&message);
        /* The answer takes the control data as they came. */
        piece = (struct iovec){"answer", 6};
        tell("answer", sendmsg(here, &message, 0));
        take("answered", there, 0, port);
    }
    send_to(there, "question", "127.0.0.1", port);
    char byte, control[20];
    struct iovec piece = {&byte, 1};
    struct msghdr message = {NULL, 0, &piece, 1, control, sizeof control, 0};
    tell("no room", recvmsg(here, &message, MSG_TRUNC));
    say("flags %x, control %zu\n", message.msg_flags, message.msg_controllen);
    struct iovec parts[3] = {{"several ", 8}, {"", 0}, {"parts", 5}};
    address to = at("127.0.0.1", port);
    message = (struct msghdr){&to, sizeof to.four, parts, 3, NULL, 0, 0};
    tell("parts", sendmsg(there, &message, 0));
    take("parts", here, 0, from);
    close(here);
    close(there);
}

static void peers(void)
{
    int here = bound("127.0.0.1"), there = made(AF_INET, 0), other = bound("127.0.0.1");
    int port = port_at(here), from;
    address name = {0};
    socklen_t length = sizeof name;
    char bytes[20];
    tell("no peer", getpeername(there, &name.any, &length));
    tell("connect", connect_to(there, "127.0.0.1", port));
    from = port_at(there);
    length = sizeof name;
    tell("peer", getpeername(there, &name.any, &length));
    say("peer %s\n", shown(&name, port));
    length = sizeof name;
    getsockname(there, &name.any, &length);
    say("own %s\n", shown(&name, from));
    tell("send", send(there, "to peer", 7, 0));
    take("got", here, 0, from);
    send_to(other, "not the peer", "127.0.0.1", from);
    tell("stranger", recv(there, bytes, 20, MSG_DONTWAIT));
    send_to(here, "from peer", "127.0.0.1", from);
    take("got", there, 0, port);
    tell("elsewhere", send_to(there, "elsewhere", "127.0.0.1", port_at(other)));
    take("got", other, 0, from);
    tell("shut", shutdown(there, SHUT_WR));
    tell("write", write(there, "x", 1));
    tell("shut all", shutdown(there, SHUT_RDWR));
    tell("ended", recv(there, bytes, 20, 0));
    say("events %x\n", polled(there, POLLIN | POLLOUT | POLLRDHUP, 0));
    close(there);
    /* Nobody has the port any more. */
    there = made(AF_INET, 0);
    connect_to(there, "127.0.0.1", port);
    close(here);
    tell("to nobody", send(there, "x", 1, 0));
    say("events %x\n", polled(there, POLLIN | POLLOUT, 1000));
    int why = 0;
    length = sizeof why;
    getsockopt(there, SOL_SOCKET, SO_ERROR, &why, &length);
    say("error %s\n", strerrorname_np(why));
    tell("again", send(there, "x", 1, 0));
    polled(there, POLLIN, 1000);
    tell("refused", recv(there, bytes, 20, 0));
    tell("once", recv(there, bytes, 20, MSG_DONTWAIT));
    address none = {.any.sa_family = AF_UNSPEC};
    tell("dissolve", connect(there, &none.any, sizeof none.four));
    tell("nobody's", send(there, "x", 1, 0));
    tell("unconnected", shutdown(there, SHUT_RD));
    tell("ended", recv(there, bytes, 20, 0));
    close(there);
    close(other);
}

static void ports(void)
{
    int first = bound("127.0.0.1"), port = port_at(first);
    tell("taken", bound_with(AF_INET, "127.0.0.1", port, 0));
    tell("taken by all", bound_with(AF_INET, "0.0.0.0", port, 0));
    int other = bound_with(AF_INET, "127.0.0.2", port, 0);
    say("other address %d\n", other >= 0);
    address to = at("127.0.0.1", 0);
    tell("bound twice", bind(first, &to.any, sizeof to.four));
    tell("family", bound_with(AF_INET, "::1", 0, 0));
    close(other);
    close(first);
    int again = bound_with(AF_INET, "127.0.0.1", port, 0);
    say("free again %d\n", again >= 0);
    close(again);
    int one = bound_with(AF_INET, "127.0.0.1", port, SO_REUSEADDR);
    int two = bound_with(AF_INET, "127.0.0.1", port, SO_REUSEADDR);
    say("reused %d %d\n", one >= 0, two >= 0);
    int from = bound("127.0.0.1");
    send_to(from, "who", "127.0.0.1", port);
    say("the latest %x %x\n", polled(one, POLLIN, 0), polled(two, POLLIN, 0));
    close(one);
    close(two);
    one = bound_with(AF_INET, "127.0.0.1", port, SO_REUSEPORT);
    two = bound_with(AF_INET, "127.0.0.1", port, SO_REUSEPORT);
    say("shared %d %d\n", one >= 0, two >= 0);
    tell("not with others", bound_with(AF_INET, "127.0.0.1", port, 0));
    for (int number = 0; number < 5; number++)
        send_to(from, "who", "127.0.0.1", port);
    int chosen = polled(one, POLLIN, 0) ? one : two, count = 0;
    char bytes[10];
    while (recv(chosen, bytes, 10, MSG_DONTWAIT) > 0)
        count++;
    say("one peer, one socket %d\n", count);
    close(one);
    close(two);
    close(from);
}

static void version_6(void)
{
    int both = bound("::"), port = port_at(both), on = 1;
    int four = bound("127.0.0.1"), six = bound("::1");
    setsockopt(both, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on);
    tell("4 to both", send_to(four, "by 4", "127.0.0.1", port));
    tell("6 to both", send_to(six, "by 6", "::1", port));
    int froms[] = {port_at(four), port_at(six)};
    for (int number = 0; number < 2; number++) {
        char bytes[20] = "", control[100];
        address peer = {0};
        struct iovec piece = {bytes, 19};
        struct msghdr message = {&peer, sizeof peer, &piece, 1, control, sizeof control, 0};
        tell("message", recvmsg(both, &message, 0));
        say("\"%s\" from %s, %d\n", bytes, shown(&peer, froms[number]), message.msg_namelen);
        show_control(&message);
        piece = (struct iovec){"back", 4};
        message.msg_control = NULL;
        message.msg_controllen = 0;
        tell("back", sendmsg(both, &message, 0));
    }
    take("4 got", four, 0, port);
    take("6 got", six, 0, port);
    tell("4 to 6", send_to(four, "x", "::1", port));
    tell("6 to 4", send_to(six, "x", "127.0.0.1", port));
    tell("mapped", send_to(both, "mapped", "::ffff:127.0.0.1", froms[0]));
    take("4 got", four, 0, port);
    tell("taken by both", bound_with(AF_INET, "127.0.0.1", port, 0));
    close(both);
    both = made(AF_INET6, 0);
    setsockopt(both, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    address to = at("::", port);
    tell("6 only", bind(both, &to.any, sizeof to.six));
    int beside = bound_with(AF_INET, "0.0.0.0", port, 0);
    say("beside %d\n", beside >= 0);
    send_to(four, "which", "127.0.0.1", port);
    say("by version %x %x\n", polled(beside, POLLIN, 0), polled(both, POLLIN, 0));
    tell("6 only to 4", send_to(both, "x", "::ffff:127.0.0.1", froms[0]));
    close(beside);
    close(both);
    close(four);
    close(six);
}

static void several(void)
{
    int here = bound("127.0.0.1"), there = bound("127.0.0.1");
    int port = port_at(here), from = port_at(there);
    char texts[6][8], bytes[6][8];
    struct iovec pieces[6];
    struct mmsghdr many[6] = {0};
    address to = at("127.0.0.1", port), peers[6] = {0};
    for (int number = 0; number < 6; number++) {
        snprintf(texts[number], 8, "%.*s", number, "abcdef");
        pieces[number] = (struct iovec){texts[number], strlen(texts[number])};
        many[number].msg_hdr = (struct msghdr){&to, sizeof to.four, &pieces[number], 1};
    }
    tell("sent", sendmmsg(there, many, 6, 0));
    say("lengths %u %u %u\n", many[0].msg_len, many[1].msg_len, many[5].msg_len);
    for (int number = 0; number < 6; number++) {
        pieces[number] = (struct iovec){bytes[number], 3};
        many[number].msg_hdr =
            (struct msghdr){&peers[number], sizeof peers[number], &pieces[number], 1};
    }
    tell("two", recvmmsg(here, many, 2, 0, NULL));
    tell("the others", recvmmsg(here, many, 6, MSG_WAITFORONE, NULL));
    for (int number = 0; number < 4; number++)
        say("%u \"%.*s\" %x from %s\n", many[number].msg_len, (int)many[number].msg_len,
            bytes[number], many[number].msg_hdr.msg_flags, shown(&peers[number], from));
    tell("none", recvmmsg(here, many, 6, MSG_DONTWAIT, NULL));
    many[0].msg_hdr = (struct msghdr){&to, sizeof to.four, &pieces[0], 1};
    address nowhere = at("127.0.0.1", 0);
    many[1].msg_hdr = (struct msghdr){&nowhere, sizeof to.four, &pieces[1], 1};
    tell("one of two", sendmmsg(there, many, 2, 0));
    tell("none of one", sendmmsg(there, many + 1, 1, 0));
    close(here);
    close(there);
}

static void readiness(void)
{
    int here = bound("127.0.0.1"), there = bound("127.0.0.1"), port = port_at(here);
    char bytes[10];
    say("fresh %x\n", polled(made(AF_INET, 0), POLLIN | POLLOUT, 0));
    say("idle %x\n", polled(here, POLLIN | POLLOUT, 0));
    say("in vain %x\n", polled(here, POLLIN, 20));
    int level = epoll_create1(0), edge = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = 5}, got;
    epoll_ctl(level, EPOLL_CTL_ADD, here, &event);
    event.events = EPOLLIN | EPOLLET;
    epoll_ctl(edge, EPOLL_CTL_ADD, here, &event);
    for (int number = 0; number < 2; number++) {
        send_to(there, "one", "127.0.0.1", port);
        send_to(there, "two", "127.0.0.1", port);
        int levels = epoll_wait(level, &got, 1, 1000), edges = epoll_wait(edge, &got, 1, 1000);
        say("ready %d %d %x %u\n", levels, edges, got.events, got.data.u32);
        recv(here, bytes, 10, 0);
        say("one left %d %d\n", epoll_wait(level, &got, 1, 0), epoll_wait(edge, &got, 1, 0));
        fd_set reads;
        FD_ZERO(&reads);
        FD_SET(here, &reads);
        struct timeval none = {0, 0};
        say("selected %d\n", select(here + 1, &reads, NULL, NULL, &none));
        recv(here, bytes, 10, 0);
        say("none left %d %d\n", epoll_wait(level, &got, 1, 0), epoll_wait(edge, &got, 1, 0));
    }
    struct timeval timeout = {0, 30000};
    setsockopt(here, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    tell("timed out", recv(here, bytes, 10, 0));
    fcntl(here, F_SETFL, O_NONBLOCK);
    tell("not blocking", recv(here, bytes, 10, 0));
    close(level);
    close(edge);
    close(here);
    close(there);
}

static void *receiver(void *fd)
{
    char bytes[10];
    return (void *)recv(*(int *)fd, bytes, 10, 0);
}

static void together(void)
{
    int here = bound("127.0.0.1"), there = bound("127.0.0.1"), port = port_at(here);
    pthread_t threads[3];
    for (int number = 0; number < 3; number++)
        pthread_create(&threads[number], NULL, receiver, &here);
    const char *texts[] = {"a", "bb", "ccc"};
    long sum = 0;
    for (int number = 0; number < 3; number++)
        send_to(there, texts[number], "127.0.0.1", port);
    for (int number = 0; number < 3; number++) {
        void *result;
        pthread_join(threads[number], &result);
        sum += (long)result;
    }
    say("threads got %ld bytes\n", sum);
    pid_t child = fork();
    if (child == 0) {
        char bytes[10] = "";
        long got = recv(here, bytes, 10, 0);
        send_to(here, bytes, "127.0.0.1", port_at(there));
        _exit((int)got);
    }
    int status;
    send_to(there, "child", "127.0.0.1", port);
    waitpid(child, &status, 0);
    say("child got %d\n", WEXITSTATUS(status));
    take("child sent", there, 0, port);
    int second = dup(here);
    close(here);
    send_to(there, "dup", "127.0.0.1", port);
    take("dup", second, 0, port_at(there));
    close(second);
    close(there);
}

static void options(void)
{
    int here = bound("0.0.0.0"), value = 0;
    socklen_t length = sizeof value;
    getsockopt(here, SOL_SOCKET, SO_TYPE, &value, &length);
    say("type %d\n", value == SOCK_DGRAM);
    getsockopt(here, SOL_SOCKET, SO_ERROR, &value, &length);
    say("error %d\n", value);
    unsigned char loop = 0;
    tell("loop", setsockopt(here, IPPROTO_IP, IP_MULTICAST_LOOP, &loop, sizeof loop));
    struct ip_mreqn group = {.imr_ifindex = 1};
    inet_pton(AF_INET, "239.1.2.3", &group.imr_multiaddr);
    tell("join", setsockopt(here, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group));
    tell("leave", setsockopt(here, IPPROTO_IP, IP_DROP_MEMBERSHIP, &group, sizeof group));
    int ttl = 7;
    tell("ttl", setsockopt(here, IPPROTO_IP, IP_TTL, &ttl, sizeof ttl));
    close(here);
}

static void answer(char request)
{
    (void)request;
    bounds();
    messages();
    peers();
    ports();
    version_6();
    several();
    readiness();
    together();
    options();
    say("done\n");
}

int main(int count, char **arguments)
{
    serve(listen_on(arguments[count - 1], 0), 0, answer);
}
