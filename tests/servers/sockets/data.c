/* Bytes on connections: reading in all ways, full windows, blocked writers, splicing. */
#include "sockets.h"
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

void reading(void)
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

void windows(void)
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

void blocking(void)
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

void splicing(void)
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
