#!/usr/bin/php
<?php
// Some 70 ms of work, and an answer that depends on it.
$sum = 0;
for ($i = 0; $i < 4000000; $i++) {
    $sum = ($sum * 31 + $i) % 1000003;
}
echo "Content-Type: text/plain\n\n";
echo "query ", getenv("QUERY_STRING"), " sum $sum\n";
