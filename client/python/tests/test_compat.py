"""The name `ray` for this package, and `raylet run`.

The one thing to know: each test is a process of its own, for what is imported stays imported. This file
must not import the package.
"""

import os
import subprocess
import sys
import textwrap

import pytest


def run(tmp_path, text, *arguments, words=("-m", "raylet", "run"), name="script.py", **environment):
    """Runs a script; how it ended."""
    script = tmp_path / name
    script.write_text(textwrap.dedent(text))
    command = [sys.executable, *words, str(script), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, **environment}, timeout=60
    )


def check(tmp_path, text, *arguments, **more):
    """Runs a script that must end well; what it printed."""
    done = run(tmp_path, text, *arguments, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_modules_are_the_same_under_both_names(tmp_path):
    check(
        tmp_path,
        """
        import ray
        import raylet
        import ray.util.queue
        import raylet.util.multiprocessing
        from ray.exceptions import RayTaskError
        from ray.util.multiprocessing import Pool
        assert ray is raylet
        assert ray.util.queue is raylet.util.queue
        assert Pool is raylet.util.multiprocessing.Pool
        assert RayTaskError is raylet.exceptions.RayTaskError
        assert ray.util.queue.__spec__.name == "raylet.util.queue"
        """,
    )


def test_a_function_with_the_name_of_its_module_stays(tmp_path):
    check(
        tmp_path,
        """
        import ray
        import ray.util
        import ray.util.placement_group
        from ray.util.placement_group import PlacementGroup, placement_group
        assert callable(ray.util.placement_group) and ray.util.placement_group is placement_group
        """,
    )


def test_what_is_not_there_is_not_found(tmp_path):
    check(
        tmp_path,
        """
        import importlib.util
        assert importlib.util.find_spec("ray.tune") is None
        assert importlib.util.find_spec("ray.util.queue") is not None
        try:
            import ray.data
        except ModuleNotFoundError as error:
            assert error.name == "ray.data"
        else:
            raise AssertionError("ray.data was found")
        """,
    )


def test_the_distribution_ray_is_known(tmp_path):
    check(
        tmp_path,
        """
        import importlib.metadata as metadata
        import ray
        assert metadata.version("ray") == ray.__version__
        assert metadata.distribution("ray").metadata["Name"] == "ray"
        assert "ray" in {found.metadata["Name"] for found in metadata.distributions()}
        """,
    )


def test_installing_twice_is_once_and_can_be_taken_back(tmp_path):
    text = """
        import sys
        import raylet.compat as compat
        compat.install()
        compat.install()
        import ray
        assert compat.is_installed() and "ray" in sys.modules
        compat.uninstall()
        assert not compat.is_installed() and "ray" not in sys.modules
        """
    check(tmp_path, text, words=())


def test_ray_itself_is_not_replaced_once_it_is_imported(tmp_path):
    (tmp_path / "ray.py").write_text("")
    text = """
        import ray
        import raylet.compat
        try:
            raylet.compat.install()
        except RuntimeError as error:
            assert "imported already" in str(error)
        else:
            raise AssertionError("it was replaced")
        """
    check(tmp_path, text, words=())


def test_workers_know_the_name(tmp_path):
    helper = "import ray\nfrom ray.util.queue import Empty\n\ndef name():\n    return ray.__name__\n"
    (tmp_path / "helper.py").write_text(helper)
    check(
        tmp_path,
        """
        import ray
        import helper

        @ray.remote
        def inside():
            import importlib.metadata
            import ray as other
            import raylet
            from ray.exceptions import GetTimeoutError
            assert importlib.metadata.version("ray") == other.__version__
            return other is raylet, GetTimeoutError is raylet.exceptions.GetTimeoutError

        by_reference = ray.remote(helper.name)
        ray.init(address="local", num_cpus=1)
        assert ray.get(inside.remote()) == (True, True)
        assert ray.get(by_reference.remote()) == "raylet"
        ray.shutdown()
        """,
    )


def test_a_script_has_its_arguments_name_and_directory(tmp_path):
    text = "import sys, os\nprint(__name__, sys.argv[1:], sys.path[0] == os.path.dirname(os.path.abspath(__file__)))\n"
    assert check(tmp_path, text, "a", "--help") == "__main__ ['a', '--help'] True\n"


def test_a_module_is_run_by_its_name(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    main = "import sys\nfrom . import part\nimport ray\nprint(__name__, sys.argv[1:])\n"
    (tmp_path / "package" / "__main__.py").write_text(main)
    (tmp_path / "package" / "part.py").write_text("")
    command = [sys.executable, "-m", "raylet", "run", "-m", "package", "x"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.stdout == "__main__ ['x']\n", done.stderr


@pytest.mark.parametrize(("text", "code"), [("raise SystemExit(7)", 7), ("import sys; sys.exit()", 0), ("1 / 0", 1)])
def test_exit_codes_are_the_scripts(tmp_path, text, code):
    assert run(tmp_path, text).returncode == code


def test_a_traceback_begins_with_the_scripts_frames(tmp_path):
    done = run(tmp_path, "def f():\n    raise ValueError('x')\nf()\n")
    lines = done.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert "script.py" in lines[1] and "raylet" not in done.stderr.replace(str(tmp_path), "")


def test_what_cannot_be_run_is_said(tmp_path):
    def ended(*words):
        return subprocess.run([sys.executable, "-m", "raylet", *words], capture_output=True, text=True, timeout=60)

    assert ended("run", "nothing.py").returncode == 2
    assert ended("run").returncode == 2
    assert ended("run", "--unknown").returncode == 2
    assert ended("run", "-m", "no_such_module").returncode == 1
    assert "raylet run" in ended("run", "--help").stdout
    assert "run " in ended("--help").stdout
