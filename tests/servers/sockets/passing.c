/* Descriptors passed to another process, over SCM_RIGHTS. */
#include "sockets.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

int send_fds(int over, const int *fds, int count)
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

int receive_fds(int over, int *fds, int room, int *flags)
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

void passing(void)
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
