/* UNIX sockets, with names in the file system and in the abstract namespace. */
#include "sockets.h"
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

void unix_sockets(void)
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
void hidden_names(void)
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
