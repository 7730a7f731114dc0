"""deploy/: the manifests against the schemas of Kubernetes, every setting against the program it is for, and what names what."""
import json
import os
import pathlib
import re
import subprocess

import pytest
import yaml

kubernetes_validate = pytest.importorskip("kubernetes_validate")

ROOT = pathlib.Path(__file__).resolve().parents[2]
K8S = ROOT / "deploy" / "k8s"
BUILD = pathlib.Path(os.environ.get("NUNCHI_BUILD", ROOT / "build"))


def documents():
    kustomization = yaml.safe_load((K8S / "kustomization.yaml").read_text())
    assert sorted(kustomization["resources"]) == sorted(p.name for p in K8S.glob("*.yaml") if p.name != "kustomization.yaml")
    return [d for name in kustomization["resources"] for d in yaml.safe_load_all((K8S / name).read_text())]


def of(kind):
    return [d for d in documents() if d["kind"] == kind]


def workloads():
    return of("Deployment") + of("StatefulSet") + of("Job")


def template(workload):
    return workload["spec"]["template"]


def containers():
    return [(w["metadata"]["name"], c) for w in workloads() for c in template(w)["spec"].get("initContainers", []) + template(w)["spec"]["containers"]]


def matches(selector, labels):
    wanted = selector.get("matchLabels", {})
    among = selector.get("matchExpressions", [])
    return all(labels.get(k) == v for k, v in wanted.items()) and all(labels.get(e["key"]) in e["values"] for e in among)


def selected(selector):
    return [w for w in workloads() if matches(selector, template(w)["metadata"]["labels"])]


def test_schemas():
    for d in documents():
        kubernetes_validate.validate(d, kubernetes_validate.latest_version(), strict=True)


def test_selectors_find_what_they_are_for():
    for service in of("Service"):
        found = selected({"matchLabels": service["spec"]["selector"]})
        assert len(found) == 1, service["metadata"]["name"]
        ports = {p["containerPort"] for c in template(found[0])["spec"]["containers"] for p in c["ports"]}
        assert all(p.get("targetPort", p["port"]) in ports for p in service["spec"]["ports"])
    for w in of("Deployment") + of("StatefulSet"):
        assert selected(w["spec"]["selector"]) == [w]
    for budget in of("PodDisruptionBudget"):
        assert len(selected(budget["spec"]["selector"])) == 1
    for scaler in of("HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        assert any(w["kind"] == target["kind"] and w["metadata"]["name"] == target["name"] for w in workloads())
    services = {s["metadata"]["name"] for s in of("Service")}
    assert all(w["spec"]["serviceName"] in services for w in of("StatefulSet"))


def test_policies_name_pods_and_ports():
    for policy in of("NetworkPolicy"):
        spec = policy["spec"]
        if spec["podSelector"]:
            assert selected(spec["podSelector"]), policy["metadata"]["name"]
        for rule, peers in [(r, r.get("from", [])) for r in spec.get("ingress", [])] + [(r, r.get("to", [])) for r in spec.get("egress", [])]:
            outgoing = "to" in rule
            pods = [w for p in peers if "podSelector" in p for w in selected(p["podSelector"])]
            assert len(pods) > 0 or not any("podSelector" in p for p in peers), policy["metadata"]["name"]
            listening = pods if outgoing else selected(spec["podSelector"])
            names = {p["name"] for w in listening for c in template(w)["spec"]["containers"] for p in c.get("ports", [])}
            for port in rule.get("ports", []):
                assert not isinstance(port["port"], str) or port["port"] in names, f"{policy['metadata']['name']}: {port}"


def test_every_pod_is_locked_in_and_watched():
    for w in workloads():
        spec = template(w)["spec"]
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        # a service named nunchi would set NUNCHI_PORT and more in every container
        assert spec["enableServiceLinks"] is False and spec["automountServiceAccountToken"] is False
        volumes = {v["name"] for v in spec.get("volumes", [])} | {v["metadata"]["name"] for v in w["spec"].get("volumeClaimTemplates", [])}
        for c in spec.get("initContainers", []) + spec["containers"]:
            inside = c["securityContext"]
            assert inside["allowPrivilegeEscalation"] is False and inside["readOnlyRootFilesystem"] and inside["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in c["resources"]["limits"] and set(c["resources"]["requests"]) == {"cpu", "memory"}
            assert {m["name"] for m in c.get("volumeMounts", [])} <= volumes
        for c in spec["containers"] if w["kind"] != "Job" else []:
            assert "readinessProbe" in c and "livenessProbe" in c
            scraped = template(w)["metadata"].get("annotations", {}).get("prometheus.io/port")
            assert scraped is None or int(scraped) in {p["containerPort"] for p in c["ports"]}


def environment(container):
    maps = {d["metadata"]["name"]: d["data"] for d in of("ConfigMap")}
    env = {}
    for source in container.get("envFrom", []):
        env.update(maps[source["configMapRef"]["name"]])
    env.update({e["name"]: e["value"] for e in container.get("env", [])})
    return env


def options_of(program):
    text = subprocess.run([BUILD / "bin" / program, "--help"], check=True, capture_output=True, text=True).stdout
    return {"NUNCHI_" + name.upper().replace("-", "_") for name in re.findall(r"--(?:\[no-\])?([a-z][a-z0-9-]*)", text)}


def test_every_setting_is_an_option_and_is_accepted():
    if not (BUILD / "bin" / "nunchi-model").exists():
        pytest.skip(f"nothing is built in {BUILD}")
    checked, known = 0, set()
    for name, c in containers():
        program = (c.get("command") or [""])[0]
        if not program.startswith("nunchi-"):
            continue
        known |= options_of(program)
        for key in [e["name"] for e in c.get("env", [])]:
            assert key in options_of(program), f"{name}: {program} has no {key}"
        env = {"PATH": os.environ["PATH"], **environment(c)}
        done = subprocess.run([BUILD / "bin" / program, "--check-config"], env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{name}: {done.stderr}"
        checked += 1
    assert checked == 5
    shared = set(of("ConfigMap")[0]["data"]) - {"FETCH"}
    assert shared <= known, shared - known


def test_the_scrape_targets_of_compose_exist():
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for job in yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())["scrape_configs"]:
        for found in job["dns_sd_configs"]:
            for name in found["names"]:
                env = services[name]["environment"]
                address = env["NUNCHI_HTTP" if name == "gateway" else "NUNCHI_METRICS"]
                assert address == f"0.0.0.0:{found['port']}", name


def test_the_dashboard_is_one():
    board = json.loads((ROOT / "deploy" / "grafana" / "nunchi.json").read_text())
    ids = [p["id"] for p in board["panels"]]
    assert len(set(ids)) == len(ids) and board["title"] == "nunchi"
    taken = set()
    for p in board["panels"]:
        at = p["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken, p["title"]
        taken |= cells
        assert p["type"] == "row" or all(t["expr"] and t["legendFormat"] for t in p["targets"])
