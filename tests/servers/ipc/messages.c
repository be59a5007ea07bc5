/* Message queues of System V. */
#include "ipc.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/types.h>
#include <unistd.h>

struct message {
    long kind;
    char text[9000];
};

static int sent(int queue, long kind, const char *text, int flags)
{
    struct message message = {.kind = kind};
    strcpy(message.text, text);
    return msgsnd(queue, &message, strlen(text), flags);
}

static void say_message(const char *what, int queue, size_t room, long kind, int flags)
{
    struct message message = {0};
    ssize_t got = msgrcv(queue, &message, room, kind, flags);
    if (got < 0)
        say("%s: error %s\n", what, strerrorname_np(errno));
    else
        say("%s: %zd bytes kind %ld %.*s\n", what, got, message.kind, (int)got, message.text);
}

static void send_numbers(int queue)
{
    char text[600];
    for (int number = 1; number <= ROUNDS; number++) {
        memset(text, 'n', sizeof text);
        sprintf(text + 500, "%d", number);
        sent(queue, 1 + number % 3, text, 0);
    }
}

void messages(void)
{
    close(opened(O_TRUNC));
    int queue = msgget(ftok(path, 'm'), IPC_CREAT | 0600);
    sent(queue, 3, "three", 0);
    sent(queue, 2, "two", 0);
    sent(queue, 5, "five", 0);
    sent(queue, 2, "", 0);
    struct msqid_ds status;
    msgctl(queue, IPC_STAT, &status);
    say("status %d messages %d bytes of %d mine %d %d\n", (int)status.msg_qnum,
        (int)status.__msg_cbytes, (int)status.msg_qbytes, status.msg_lspid == getpid(),
        status.msg_lrpid);
    say_message("too long", queue, 2, 3, 0);
    say_message("cut", queue, 2, 3, MSG_NOERROR);
    say_message("not two", queue, 100, 2, MSG_EXCEPT);
    say_message("at most four", queue, 100, -4, 0);
    say_message("any", queue, 100, 0, 0);
    say_message("none", queue, 100, 0, IPC_NOWAIT);
    say("errors %d %d", sent(queue, 0, "no kind", 0) == -1 && errno == EINVAL,
        msgsnd(queue, &(struct message){.kind = 1}, 9000, 0) == -1 && errno == EINVAL);
    interrupt_soon();
    struct message message;
    say(" interrupted %d\n", msgrcv(queue, &message, 10, 0, 0) == -1 && errno == EINTR);
    interrupt_no_more();
    /* More than it holds: senders wait. */
    pid_t children[2];
    for (int at = 0; at < 2; at++) {
        children[at] = fork();
        if (children[at] == 0) {
            send_numbers(queue);
            _exit(0);
        }
    }
    int sum = 0, kinds = 0;
    for (int number = 0; number < 2 * ROUNDS; number++) {
        ssize_t got = msgrcv(queue, &message, sizeof message.text - 1, 0, 0);
        if (got < 0)
            break;
        message.text[got] = 0;
        sum += atoi(message.text + 500);
        kinds += message.kind;
    }
    say("senders %d %d", reap(children[0]), reap(children[1]));
    say(" sum %d kinds %d\n", sum, kinds);
    while (sent(queue, 1, "as many as there is room for", IPC_NOWAIT) == 0)
        sum++;
    say("full %d after %d\n", errno == EAGAIN, sum);
    children[0] = fork();
    if (children[0] == 0)
        _exit(sent(queue, 1, "one more", 0) == -1 && errno == EIDRM ? 43 : 1);
    status.msg_qbytes = 100;
    say("set %d", msgctl(queue, IPC_SET, &status));
    msgctl(queue, IPC_STAT, &status);
    say(" %d\n", (int)status.msg_qbytes);
    usleep(20000);
    say("removed %d", msgctl(queue, IPC_RMID, NULL));
    int end = reap(children[0]);
    /* Natively it may have come too late to wait. */
    say(" sender %d\n", end == 43 || end == 1);
}
