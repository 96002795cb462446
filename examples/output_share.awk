# A meter in a few lines of awk: the run's joules per output token, times the output tokens of each request.
# jouleproxy truth run --case medium --command 'awk -v out={out} -f examples/output_share.awk {timeline}'
function number(key) {
    if (!match($0, "\"" key "\":[-+.0-9e]+")) return 0
    return substr($0, RSTART + length(key) + 3) + 0
}
function request() {
    match($0, /"request":"[^"]*"/)
    return substr($0, RSTART + 11, RLENGTH - 12)
}
/"type":"sample"/ { last = number("energy_mj"); if (!first) first = last }
/"type":"output"/ { counted[request()] += number("tokens") }
/"type":"end"/ {
    r = request()
    tokens[r] = number("completion_tokens")
    if (!tokens[r]) tokens[r] = counted[r]  # null: cancelled, or no usage
    all += tokens[r]
}
END {
    for (r in tokens) {
        printf "{\"request\":\"%s\",\"joules\":%.6g}\n", r, (last - first) / 1000 * tokens[r] / all > out
    }
}
