# SPDX-License-Identifier: Apache-2.0
import pytest
import toys


@pytest.fixture(scope="session")
def deploy_data(tmp_path_factory):
    return toys.write_data(tmp_path_factory.mktemp("deploy_data"))
