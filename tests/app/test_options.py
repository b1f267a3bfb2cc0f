"""Options of apps and functions: what each becomes, and wrong ones' errors."""

from __future__ import annotations

import pytest

import fal
from fal.app.app import app_name_of
from fal.app.health import HealthCheckConfig


@pytest.mark.parametrize(
    ("class_name", "name"),
    [
        ("TinyApp", "tiny-app"),
        ("MyGoodApp", "my-good-app"),
        ("ONNXModel", "o-n-n-x-model"),
        ("Llama3Chat", "llama-chat"),
        ("mock_model", "mock-model"),
        ("tiny", "tiny"),
    ],
)
def test_names_follow_from_classes(class_name, name):
    assert app_name_of(class_name) == name
    assert type(class_name, (fal.App,), {}).app_name == name


KEYWORDS = {
    "requirements": ["a"],
    "machine_type": "GPU-H100",
    "num_gpus": 2,
    "regions": ["us-east"],
    "keep_alive": 5,
    "min_concurrency": 1,
    "max_concurrency": 4,
    "concurrency_buffer": 1,
    "concurrency_buffer_perc": 20,
    "scaling_delay": 3,
    "max_multiplexing": 8,
    "request_timeout": 9,
    "request_start_timeout": 0,
    "startup_timeout": 11,
    "termination_grace_period_seconds": 12,
    "metrics_port": 9191,
    "private_logs": True,
    "app_files": ["a.txt"],
    "app_files_ignore": ["b"],
    "secrets": ["S"],
    "data_mounts": ["/data"],
    "skip_retry_conditions": ["timeout"],
    "retry_config": {"timeout": {"retries": 1}},
    "python_version": "3.12",
    "local_python_modules": ["json"],
    "_scheduler": "other",
}


@pytest.mark.parametrize(("name", "value"), KEYWORDS.items())
def test_each_option_may_be_a_keyword_or_an_attribute(name, value):
    by_keyword = type("ByKeyword", (fal.App,), {}, **{name: value})
    by_attribute = type("ByAttribute", (fal.App,), {name: value})
    assert by_keyword.options()[name] == by_attribute.options()[name] == value
    assert by_keyword.host_kwargs[name] == value
    assert type("Heir", (by_keyword,), {}).options()[name] == value


def test_defaults_of_a_class_app():
    class Plain(fal.App):
        pass

    assert Plain.options() == {
        "resolver": "uv",
        "machine_type": "S",
        "keep_alive": 60,
        "app_files_ignore": [r"\.pyc$", r"__pycache__/", r"\.git/", r"\.DS_Store$"],
        "_scheduler": "nomad",
        "_scheduler_options": {"storage_region": "us-east"},
    }
    assert (Plain.app_name, Plain.app_auth) == ("plain", None)


def test_name_keyword_attribute_and_inheritance():
    class ByKeyword(fal.App, name="other"):
        pass

    class ByAttribute(fal.App, name="other"):
        app_name = "attribute"

    class Heir(ByKeyword):
        pass

    class Renamed(ByKeyword, name="renamed"):
        pass

    assert [cls.app_name for cls in (ByKeyword, ByAttribute, Heir, Renamed)] == [
        "other",
        "attribute",
        "other",
        "renamed",
    ]


def test_older_apps_give_host_kwargs():
    class Older(fal.App, keep_alive=7):
        host_kwargs = {"max_multiplexing": 3, "_scheduler": "x"}  # noqa: RUF012

    assert Older.options()["max_multiplexing"] == 3
    assert Older.options()["_scheduler"] == "x"
    assert Older.options()["keep_alive"] == 7


def test_a_mapping_of_ones_own_holds_no_defaults():
    class Older(fal.App):
        host_kwargs = {"max_multiplexing": 3}  # noqa: RUF012
        keep_alive = 7

    assert Older.host_kwargs["keep_alive"] == 7
    assert not {"resolver", "_scheduler", "_scheduler_options"} & Older.host_kwargs.keys()


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"keep_alive": -1}, "keep_alive is -1: give a whole number"),
        ({"keep_alive": "60"}, "keep_alive is '60'"),
        ({"requirements": "numpy"}, "give a list of texts"),
        ({"requirements": [["a"], "b"]}, "give a list of texts"),
        ({"machine_type": []}, "give a name or a list"),
        ({"metrics_port": 70000}, "give a port"),
        ({"private_logs": 1}, "give True or False"),
        ({"skip_retry_conditions": ["never"]}, "the conditions are timeout"),
        ({"app_auth": "open"}, "app_auth is 'open': give one of public, private, shared"),
        ({"app_files_context_dir": ".."}, "of no use without app_files"),
        ({"image": fal.ContainerImage("FROM x"), "app_files": ["a"]}, "COPY the files"),
        ({"kind": "vm"}, "the kinds are virtualenv, container, conda"),
        ({"__init__": lambda self: None}, "do its work in setup()"),
    ],
)
def test_wrong_attributes_are_named(attributes, words):
    with pytest.raises(ValueError) as caught:
        type("Wrong", (fal.App,), attributes)
    assert words in str(caught.value)


def test_misspelt_keywords_get_the_nearest_name():
    with pytest.raises(ValueError, match="did you mean 'keep_alive'"):
        type("Wrong", (fal.App,), {}, keep_alife=3)
    with pytest.raises(ValueError, match="did you mean 'machine_type'"):
        fal.function(machine_typ="S")(lambda: None)  # pyright: ignore[reportCallIssue]
    with pytest.raises(ValueError, match="serve is an option of functions"):
        type("Wrong", (fal.App,), {}, serve=True)


def test_endpoints_are_checked():
    with pytest.raises(ValueError, match='begin it with "/"'):
        fal.endpoint("predict")
    with pytest.raises(ValueError, match="cannot be a health check"):
        fal.endpoint("/", is_websocket=True, health_check=fal.HealthCheck())

    class Twice(fal.App):
        with pytest.raises(ValueError, match="is at / already"):

            @fal.endpoint("/other")
            @fal.endpoint("/")
            def run(self) -> None: ...

    with pytest.raises(ValueError, match="has no endpoint"):
        Twice(_allow_init=True).openapi()


def test_a_websocket_endpoint_must_be_async_and_take_the_socket():
    class Wrong(fal.App):
        @fal.endpoint("/ws", is_websocket=True)
        def run(self, socket) -> None: ...

    with pytest.raises(ValueError, match=r"must take a fastapi\.WebSocket and be async"):
        Wrong(_allow_init=True).openapi()


def test_health_check_belongs_to_its_endpoint():
    class Checked(fal.App):
        @fal.endpoint("/well", health_check=fal.HealthCheck(timeout_seconds=2, call_regularly=False))
        def well(self) -> None: ...

    assert Checked.options()["health_check_config"] == HealthCheckConfig(
        path="/well", timeout_seconds=2, call_regularly=False, method="POST"
    )
    with pytest.raises(ValueError, match="several health checks"):

        class Twice(Checked):
            @fal.endpoint("/too", health_check=fal.HealthCheck())
            def too(self) -> None: ...


@pytest.mark.parametrize("options", [{"timeout_seconds": -1}, {"failure_threshold": True}, {"method": "HEAD"}])
def test_health_checks_are_checked(options):
    with pytest.raises(ValueError, match="HealthCheck"):
        fal.HealthCheck(**options)


def test_an_app_is_not_made_by_hand():
    class Plain(fal.App):
        pass

    with pytest.raises(RuntimeError, match=r"Plain\.run_local\(\)"):
        Plain()


def test_functions_run_here_when_asked():
    @fal.function(requirements=["x"], machine_type="M", max_multiplexing=2)
    def add(a: int, b: int = 1) -> int:
        """Adds."""
        return a + b

    assert (add.func(1, b=2), add.run_local(3)) == (3, 4)
    assert (add.__name__, add.__doc__, add.app_name) == ("add", "Adds.", "add")
    assert add.options == {"kind": "virtualenv", "requirements": ["x"], "machine_type": "M", "max_multiplexing": 2}
    assert add.on(machine_type="L").options["machine_type"] == "L"
    assert add.options["machine_type"] == "M"


def test_async_functions_run_here_too():
    @fal.function()
    async def late(n: int) -> int:
        return n + 1

    assert late.run_local(1) == 2


def test_cached_keeps_results():
    calls = []

    @fal.cached
    def load(name):
        calls.append(name)
        return object()

    assert load("a") is load("a")
    load("b")
    assert calls == ["a", "b"]


def test_isolated_is_the_older_name_of_function():
    assert fal.isolated is fal.function


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fal.nothing  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ImportError, match="not part of this package"):
        from fal.toolkit import NothingOfThisName  # noqa: F401


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "empty"),
        ({"never": {"retries": 1}}, "the conditions are timeout, server_error, connection_error"),
        ({"timeout": 3}, '{"retries": 2}'),
        ({"timeout": {"retries": -1}}, '{"retries": 2}'),
    ],
)
def test_retry_configs_are_checked(config, words):
    from fal.app.retries import checked_retry_config

    with pytest.raises(ValueError) as caught:
        checked_retry_config(config)
    assert words in str(caught.value)


def test_retry_config_as_json():
    from fal.app.retries import retry_config_json

    assert retry_config_json(fal.RetryConfig(server_error=3)) == '{"server_error": {"retries": 3}}'


@pytest.mark.parametrize("name", ["image", "keep_alive", "requirements", "regions", "private_logs"])
def test_a_method_with_the_name_of_a_setting_is_told_to_take_another(name):
    with pytest.raises(ValueError) as caught:
        type("Three", (fal.App,), {name: fal.endpoint(f"/{name}")(lambda self: {})})
    assert str(caught.value) == (
        f"class Three: {name} is a setting, and a function has its name: give the function another"
    )


def test_all_methods_with_the_names_of_settings_are_named():
    names = ("image", "keep_alive", "requirements")
    methods = {name: fal.endpoint(f"/{name}")(lambda self: {}) for name in names}
    with pytest.raises(ValueError) as caught:
        type("Three", (fal.App,), {"machine_type": 3, **methods})
    assert str(caught.value) == (
        "class Three: image, requirements and keep_alive are settings, and functions have their names: give the "
        "functions others"
    )
