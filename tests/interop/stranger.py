"""A client with only the .proto files. It lists runners, then follows a runner's logs to their end.

Called as `python stranger.py STUBS HOST KEY_ID RUNNER_ID MESSAGE`, with the key on standard input; STUBS is the folder
of protoc's output. Prints a line for the list, when it follows, for the message, and at the end.
"""

from __future__ import annotations

import sys

import grpc

sys.path.insert(0, sys.argv[1])

from fal.v1 import log_pb2, log_pb2_grpc, runner_pb2, runner_pb2_grpc  # the stubs of protoc, not the SDK


def main() -> None:
    """Work like a service in any language."""
    host, key_id, runner_id, message = sys.argv[2:6]
    metadata = (("auth-key-id", key_id), ("auth-key", sys.stdin.readline().strip()))
    with grpc.insecure_channel(host) as channel:
        runners = runner_pb2_grpc.RunnersStub(channel)
        listed = runners.ListRunners(runner_pb2.ListRunnersRequest(list_pending=True), metadata=metadata, timeout=60)
        found = {runner.runner_id: runner for runner in listed.runners}
        states = runner_pb2.RunnerInfo.State
        print("listed", found[runner_id].alias, states.Name(found[runner_id].state), flush=True)

        request = log_pb2.FollowLogsRequest(selector=log_pb2.LogSelector(runner_id=runner_id))
        request.since.FromSeconds(0)
        stream = log_pb2_grpc.LogsStub(channel).FollowLogs(request, metadata=metadata)
        print("following", flush=True)
        for batch in stream:
            if any(message in entry.message for entry in batch.entries):
                print("heard", flush=True)
            if batch.HasField("runner_ended"):
                print("ended", batch.runner_ended.runner_id, flush=True)
                return


if __name__ == "__main__":
    main()
