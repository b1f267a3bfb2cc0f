"""The metrics of a real runner's app on the controller's page."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.support.controller import running

APP = """
import fal

class Counting(fal.App, name="counting", keep_alive=300):
    machine_type = "XS"
    app_auth = "public"

    @fal.endpoint("/")
    def count(self) -> dict:
        return {}
"""


def test_a_runners_metrics_are_on_both_pages(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    with running(tmp_path / "state") as controller:
        controller.fal("deploy", str(tmp_path / "app.py"))
        for _ in range(3):
            assert controller.call("/local/counting/", {}).status == 200
        for path in ("/metrics", "/v1/serverless/metrics"):
            text = controller.call(path, key=controller.key).body.decode()
            samples = {
                sample.name: sample
                for family in text_string_to_metric_families(text)
                for sample in family.samples
                if sample.labels.get("application") == "local/counting"
            }
            runner_id = samples["fal_runner_metrics_up"].labels["runner_id"]
            assert samples["fal_runner_metrics_up"].value == 1
            counted = samples["http_requests_total"]
            assert counted.value == 3
            assert counted.labels["path"] == "/"
            assert counted.labels["runner_id"] == runner_id
            assert "exported_fal_app_info" in samples
