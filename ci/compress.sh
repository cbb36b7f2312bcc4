#!/usr/bin/env bash
# Compress a model on a cluster from a build, and fail the build when the result is not what was agreed.
# Everything comes from the environment, so that no CI system pastes a value into a shell's text:
#   RESPROUT_RECIPE      the recipe's file
#   RESPROUT_SET         changes of it: SECTION.FIELD=VALUE, one a line
#   RESPROUT_RESULT      s3://BUCKET/PREFIX/NAME/VERSION where it is published: held against its gate, as JUnit
#   RESPROUT_EXPERIMENT, RESPROUT_NAME   what the run is grouped under and called in KFP
#   RESPROUT_TIMEOUT     how long to wait: 90m, 24h
#   RESPROUT_OUT         the folder for summary.md, run.xml (JUnit), run.json, gate.xml, gate.json (resprout-ci)
#   RESPROUT_KFP_*, RESPROUT_STORAGE_*   where, and as whom: docs/ci.md
# GITHUB_OUTPUT and GITHUB_STEP_SUMMARY get their share where they are set. Exit codes: docs/ci.md.
set -uo pipefail
recipe=${RESPROUT_RECIPE:?names the recipe}
out=${RESPROUT_OUT:-resprout-ci}
mkdir -p "$out" || exit 2
rm -f "$out"/{run,gate}.{xml,json,md} "$out"/summary.md

# What stages and Kubernetes say is for people: no line of it is a command to the runner.
if [ "${GITHUB_ACTIONS:-}" = true ]; then
    commands_again=$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')
    echo "::stop-commands::$commands_again"
    trap 'echo "::$commands_again::"' EXIT
fi

changes=() options=(--wait --plain --json "$out/run.json" --junit "$out/run.xml" --markdown "$out/run.md")
while read -r change; do  # read takes the blanks off both ends
    if [ -n "$change" ]; then changes+=(--set "$change"); fi
done <<<"${RESPROUT_SET:-}"
if [ -n "${RESPROUT_EXPERIMENT:-}" ]; then options+=(--experiment "$RESPROUT_EXPERIMENT"); fi
if [ -n "${RESPROUT_NAME:-}" ]; then options+=(--name "$RESPROUT_NAME"); fi
if [ -n "${RESPROUT_TIMEOUT:-}" ]; then options+=(--timeout "$RESPROUT_TIMEOUT"); fi

of_run() { # a field of run.json, on one line; nothing where the run was never created
    python3 -c 'import json, sys; print(" ".join(str(json.load(open(sys.argv[1])).get(sys.argv[2]) or "").split()))' \
        "$out/run.json" "$1" 2>/dev/null
}

code=0
resprout submit "${options[@]}" "${changes[@]}" -- "$recipe" || code=$?
if [ "$code" -eq 0 ] && [ -n "${RESPROUT_RESULT:-}" ]; then
    digest=$(of_run digest) expected=() # of the model that this very run published
    if [ -n "$digest" ]; then expected=(--sha256 "$digest"); fi
    resprout gate "${expected[@]}" --junit "$out/gate.xml" --json "$out/gate.json" --markdown "$out/gate.md" "${changes[@]}" \
        -- "$recipe" "$RESPROUT_RESULT" || code=$?
fi

case $code in
    0) verdict="the result is as agreed" ;;
    1) verdict="the result breaks a limit of its gate" ;;
    2) verdict="wrong recipe or settings; nothing was submitted" ;;
    3) verdict="the run failed or was stopped" ;;
    130) verdict="interrupted; the run goes on" ;;
    *) verdict="it cannot be told" ;;
esac
id=$(of_run run_id) link=$(of_run link) state=$(of_run state)
{
    echo "### Resprout: $verdict"
    echo
    if [ -s "$out/run.md" ]; then cat "$out/run.md"; elif [ -n "$id" ]; then echo "Run $id $link"; fi
    if [ -s "$out/gate.md" ]; then echo && cat "$out/gate.md"; fi
} >"$out/summary.md"
if [ -n "${GITHUB_STEP_SUMMARY:-}" ]; then cat "$out/summary.md" >>"$GITHUB_STEP_SUMMARY"; fi
if [ -n "${GITHUB_OUTPUT:-}" ]; then
    printf 'run-id=%s\nlink=%s\nstate=%s\nexit-code=%s\n' "$id" "$link" "$state" "$code" >>"$GITHUB_OUTPUT"
fi
echo "resprout: $verdict"
exit "$code"
