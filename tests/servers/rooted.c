// Lives in a root of its own: `rooted PORT`. Answers every connection with the words in /etc/words, the number of
// the connection, and the length of /var/count, to which it adds a byte for each.

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static long length_after_one_more(void) {
    struct stat about;
    int file = open("/var/count", O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (file < 0 || write(file, "x", 1) != 1 || fstat(file, &about) < 0) exit(6);
    close(file);
    return (long)about.st_size;
}

static void words(char *to, size_t room) {
    int file = open("/etc/words", O_RDONLY);
    ssize_t got = file < 0 ? -1 : read(file, to, room - 1);
    if (got < 0) exit(7);
    to[got] = 0;
    close(file);
}

int main(int argc, char **argv) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (argc != 2 || listener < 0) return 1;
    address.sin_port = htons((unsigned short)atoi(argv[1]));
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0) return 2;
    if (listen(listener, 16) < 0) return 3;
    for (long number = 1;; number++) {
        char said[64], answer[128];
        int client = accept(listener, NULL, NULL);
        if (client < 0) return 4;
        words(said, sizeof said);
        snprintf(answer, sizeof answer, "%s %ld %ld\n", said, number, length_after_one_more());
        if (write(client, answer, strlen(answer)) < 0) return 5;
        close(client);
    }
}
