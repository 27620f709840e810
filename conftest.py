"""For every test folder: pytest's own runner, with which the plugin is tested."""

pytest_plugins = ["pytester"]
