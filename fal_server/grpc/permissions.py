"""The permission that each method of the contract needs."""

from __future__ import annotations

ANY_KEY = ""
"""In place of a permission: every valid key will do."""

# By the method's full name in fal.v1; its second name needs the same. A method without a row stops the start.
METHOD_PERMISSIONS: dict[str, str] = {
    "fal.v1.Apps.DeleteAlias": "serverless:apps:write",
    "fal.v1.Apps.ExplainApp": "serverless:apps:read",
    "fal.v1.Apps.ListAliases": "serverless:apps:read",
    "fal.v1.Apps.RolloutApplication": "serverless:apps:write",
    "fal.v1.Apps.SetAlias": "serverless:apps:write",
    "fal.v1.Apps.SimulateApp": "serverless:apps:read",
    "fal.v1.Apps.UpdateApplication": "serverless:apps:write",
    "fal.v1.Apps.WatchApps": "serverless:apps:read",
    "fal.v1.Environments.CreateEnvironment": "serverless:environments:write",
    "fal.v1.Environments.DeleteEnvironment": "serverless:environments:write",
    "fal.v1.Environments.ListEnvironments": "serverless:environments:read",
    "fal.v1.Execs.CloseExec": "serverless:runners:exec",
    "fal.v1.Execs.GetExec": "serverless:runners:exec",
    "fal.v1.Execs.ListExecs": "serverless:runners:exec",
    "fal.v1.Execs.ReadExec": "serverless:runners:exec",
    "fal.v1.Execs.ResizeExec": "serverless:runners:exec",
    "fal.v1.Execs.SignalExec": "serverless:runners:exec",
    "fal.v1.Execs.StartExec": "serverless:runners:exec",
    "fal.v1.Execs.WriteExec": "serverless:runners:exec",
    "fal.v1.Keys.CreateUserKey": "keys:write",
    "fal.v1.Keys.GetCaller": ANY_KEY,
    "fal.v1.Keys.ListUserKeys": "keys:read",
    "fal.v1.Keys.RevokeUserKey": "keys:write",
    "fal.v1.Keys.RotateUserKey": "keys:write",
    "fal.v1.Logs.FollowLogs": "serverless:logs:read",
    "fal.v1.Logs.ListLogs": "serverless:logs:read",
    "fal.v1.Revisions.BuildEnvironment": "serverless:revisions:write",
    "fal.v1.Revisions.DeleteApplication": "serverless:revisions:write",
    "fal.v1.Revisions.ListApplications": "serverless:revisions:read",
    "fal.v1.Revisions.PlanApplication": "serverless:revisions:read",
    "fal.v1.Revisions.RegisterApplication": "serverless:revisions:write",
    "fal.v1.Runners.GetRunner": "serverless:runners:read",
    "fal.v1.Runners.KillRunner": "serverless:runners:write",
    "fal.v1.Runners.ListAliasRunners": "serverless:runners:read",
    "fal.v1.Runners.ListNodes": "serverless:runners:read",
    "fal.v1.Runners.ListRunners": "serverless:runners:read",
    "fal.v1.Runners.ShellRunner": "serverless:runners:exec",
    "fal.v1.Runners.StopRunner": "serverless:runners:write",
    "fal.v1.Runners.WatchRunners": "serverless:runners:read",
    "fal.v1.Runs.InteractiveRun": "serverless:runs:write",
    "fal.v1.Runs.Map": "serverless:runs:write",
    "fal.v1.Runs.Run": "serverless:runs:write",
    "fal.v1.Secrets.ListSecrets": "serverless:secrets:read",
    "fal.v1.Secrets.SetSecret": "serverless:secrets:write",
}
