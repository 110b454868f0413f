ALONE = ("mosquitto, MQTT 5", "mosquitto, MQTT 3.1.1", "NATS", "amqtt", "aedes")
def protocol_of(column):
    return "3.1.1" if column in ("mosquitto, MQTT 3.1.1", "amqtt") else "auto"
